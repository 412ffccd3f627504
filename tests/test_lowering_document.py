"""The neuron worked through in docs/design/lowering.md, recomputed with the passes.

``python tests/test_lowering_document.py`` prints the block of numbers as it has to stand in the document.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from onnx_fhe.ir import load, runtime
from onnx_fhe.ir.data import calibration_for, read_npz
from onnx_fhe.ir.graph import constant_of
from onnx_fhe.passes.base import Context
from onnx_fhe.passes.manager import PassManager

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "design" / "lowering.md"
LAYER, NEURON = "/0/Gemm", 3
QUANTIZE = "normalize,quantize{weights=3 activations=3 inputs=3 method=nearest adapt=0}"
ROUNDING = "insert-rounding{bits=4 fill=none output-bits=0}"


def _number(value: float) -> str:
    return f"{float(value):.4g}"


def _row(values: np.ndarray) -> str:
    return " ".join(str(int(v)) for v in np.asarray(values).reshape(-1))


def worked() -> dict[str, str]:
    """The numbers of the document, by name, in order."""
    model = load.load(str(ROOT / "examples" / "digits_mlp.onnx"))
    data = calibration_for(model, read_npz(str(ROOT / "examples" / "digits_mlp.calibration.npz")))
    context = Context(calibration=data)
    found: dict[str, str] = {}
    normalized = PassManager.parse("normalize").run(model).model
    node = next(n for n in normalized.graph if n.name == LAYER)
    weights, bias = constant_of(node.inputs[1])[NEURON], constant_of(node.inputs[2])[NEURON]
    found["float weights 20 to 27"] = " ".join(f"{w:.3f}" for w in weights[20:28])
    found["float bias"] = _number(bias)

    quantized = PassManager.parse(QUANTIZE).run(model, context).model
    node = next(n for n in quantized.graph if n.name == LAYER)
    dequantize, source = node.inputs[1].producer(), node.inputs[0].producer()
    codes = constant_of(dequantize.inputs[0])[NEURON]
    gain = constant_of(dequantize.inputs[1])[NEURON] * constant_of(source.inputs[1])
    found["input scale"] = _number(constant_of(source.inputs[1]))
    found["integer weights 20 to 27"] = _row(codes[20:28])
    found["gain"] = _number(gain)
    found["offset"] = _number(constant_of(node.inputs[2])[NEURON])

    fused = PassManager.parse(f"{QUANTIZE},lower-to-integer,fuse-tlu").run(model, context).model
    table = next(n for n in fused.graph if n.op_type == "TableLookup")
    seen = runtime.run(fused, data, [table.inputs[0].name])[table.inputs[0].name][:, NEURON]
    entries, first = constant_of(table.inputs[1])[NEURON], int(constant_of(table.inputs[2])[NEURON])
    found["accumulators seen"] = f"{int(seen.min())} to {int(seen.max())}"
    found["entry at 0, 20, 40, 60, 80"] = _row(entries[[x - first for x in (0, 20, 40, 60, 80)]])

    rounded = PassManager.parse(f"{QUANTIZE},lower-to-integer,fuse-tlu,{ROUNDING}").run(model, context).model
    table = next(n for n in rounded.graph if n.op_type == "TableLookup")
    rounding = table.inputs[0].producer()
    removed, size = rounding.attributes["lsbs_to_remove"].as_int(), len(constant_of(table.inputs[1])[NEURON])
    found["L"] = str(int(np.log2(size)) + removed)
    found["t"] = str(removed)
    add = rounding.inputs[0].producer()
    found["offset before rounding"] = str(int(constant_of(add.inputs[1]).reshape(-1)[NEURON]))
    found["table"] = _row(constant_of(table.inputs[1])[NEURON])
    return found


def block(numbers: dict[str, str]) -> str:
    """The numbers as the document shows them."""
    return "\n".join(f"{name}: {value}" for name, value in numbers.items())


def test_the_document_has_the_numbers_that_the_passes_compute():
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = re.search(r"```numbers\n(.*?)\n```", text, re.DOTALL)
    assert shown is not None
    assert shown.group(1) == block(worked())


def test_the_steps_of_the_document_lead_from_one_number_to_the_next():
    numbers = worked()
    bits, removed = int(numbers["L"]), int(numbers["t"])
    table = [int(v) for v in numbers["table"].split()]
    assert len(table) == 2 ** (bits - removed)
    gain, offset = float(numbers["gain"]), float(numbers["offset"])
    low, high = (int(v) for v in numbers["accumulators seen"].split(" to "))
    shift = int(numbers["offset before rounding"])
    # Safe range: rounding up does not leave L bits.
    assert low + shift >= 0
    assert high + shift <= 2**bits - 1 - 2 ** (removed - 1)
    # A rectifier: nothing below zero, rising above.
    for accumulator in range(low, high + 1):
        entry = table[(accumulator + shift + 2 ** (removed - 1)) >> removed]
        if gain * accumulator + offset < -gain * 2**removed:
            assert entry == 0
    assert table == sorted(table)


if __name__ == "__main__":
    print(block(worked()))
