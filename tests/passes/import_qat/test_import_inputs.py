"""A network trained quantized whose input has no quantizer: that one is calibrated, what is inside is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_fhe
from onnx_fhe.ir.errors import DataError, UnsupportedError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.range_options import RangeOptions
from onnx_fhe.ir.runtime import Session, run
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager

FOLDER = Path(__file__).parents[2] / "models" / "qat"
TO_TABLES = "normalize,import-qat,quantize,lower-to-integer,fuse-tlu"
QUANTIZERS = {"Quant", "QuantizeLinear", "Clip", "DequantizeLinear"}
FLOAT_INPUT = [
    "brevitas_cnn_4bit_qcdq",
    "brevitas_cnn_4bit_qonnx",
    "brevitas_mlp_4bit_shifted_qonnx",
    "brevitas_mlp_3bit_channel_qcdq",
    "onnxruntime_mlp_qdq_s8s8_tensor",
    "torch_fake_quantize",
]
INTEGER_INPUT = [
    "onnxruntime_cnn_qoperator_u8s8_channel",
    "onnxruntime_mlp_qoperator_u8u8_tensor",
    "onnxruntime_mlp_qdq_s8s8_tensor",
]


def without_quantizer(stem: str, folder: Path, kinds: set[str], inner: bool = False) -> Path:
    """A file without the quantizer behind its input, or the one behind its first layer.

    Of the first operator of ``kinds`` behind the place all are taken out that follow each other.
    """
    proto = onnx.load(FOLDER / f"{stem}.onnx")
    name = proto.graph.input[0].name
    if inner:
        name = next(n.output[0] for n in proto.graph.node if n.op_type == "Relu")
    current = name
    for node in list(proto.graph.node):
        if node.input and node.input[0] == current and node.op_type in kinds:
            current = node.output[0]
            proto.graph.node.remove(node)
            if node.op_type == "QuantizeLinear":
                zero = next((t for t in proto.graph.initializer if t.name == node.input[2]), None)
    assert current != name
    for node in proto.graph.node:
        node.input[:] = [name if v == current else v for v in node.input]
    if kinds == {"QuantizeLinear"} and not inner:
        assert zero is not None
        proto.graph.input[0].type.tensor_type.elem_type = zero.data_type
    path = folder / "model.onnx"
    onnx.save(proto, path)
    return path


def data_for(path: Path) -> dict[str, np.ndarray]:
    proto = onnx.load(path)
    value = proto.graph.input[0].type.tensor_type
    shape = (200, *(d.dim_value for d in value.shape.dim[1:]))
    random = np.random.default_rng(1)
    kind = value.elem_type
    name = proto.graph.input[0].name
    if kind == TensorProto.FLOAT:
        return {name: random.normal(0, 1, shape).astype(np.float32)}
    limits = np.iinfo(np.uint8 if kind == TensorProto.UINT8 else np.int8)
    return {name: random.integers(limits.min, limits.max + 1, shape).astype(limits.dtype)}


def follows(path: Path, data: dict[str, np.ndarray]) -> tuple[float, list[str]]:
    """Share of the outputs' variance that tables of all bits keep, and the notes."""
    model = load(path)
    result = PassManager.parse(TO_TABLES).run(
        model, Context(calibration=data, ranges=RangeOptions(margin=1.0))
    )
    expected = next(iter(Session(model).run_batched(data).values()))
    found = next(iter(run(result.model, data).values()))
    lost = ((found - expected) ** 2).sum() / ((expected - expected.mean(axis=0)) ** 2).sum()
    return 1 - float(lost), result.context.notes


@pytest.mark.parametrize("stem", FLOAT_INPUT)
def test_an_input_without_a_quantizer_is_calibrated_and_named(stem: str, tmp_path: Path) -> None:
    path = without_quantizer(stem, tmp_path, QUANTIZERS)
    data = data_for(path)
    kept, notes = follows(path, data)
    assert kept > 0.95
    (note,) = [n for n in notes if "without a quantizer" in n]
    assert repr(next(iter(data))) in note
    assert "8 bits" in note
    assert not any("ties of float rounding)" in n for n in notes)


@pytest.mark.parametrize("stem", INTEGER_INPUT)
def test_an_input_that_is_integers_needs_none(stem: str, tmp_path: Path) -> None:
    path = without_quantizer(stem, tmp_path, {"QuantizeLinear"})
    kept, notes = follows(path, data_for(path))
    assert kept > 0.99
    assert not any("without a quantizer" in n for n in notes)


def small(path: Path) -> Path:
    """Two dense layers with Quant for weights and what is between them, and none for the input."""
    random = np.random.default_rng(3)
    stored = {"scale": 0.125, "zero": 0.0, "bits": 4.0}
    stored |= {"w1": random.normal(0, 0.5, (6, 5)), "w2": random.normal(0, 0.5, (5, 3))}

    def quant(name: str, signed: int) -> onnx.NodeProto:
        return helper.make_node(
            "Quant", [name, "scale", "zero", "bits"], [f"{name}q"], f"quant_{name}", domain="onnx.brevitas",
            signed=signed, narrow=0,
        )  # fmt: skip

    nodes = [
        quant("w1", 1),
        helper.make_node("MatMul", ["x", "w1q"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        quant("r", 0),
        quant("w2", 1),
        helper.make_node("MatMul", ["rq", "w2q"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("preset", ["balanced", "accurate"])
def test_presets_compile_it(preset: str, tmp_path: Path) -> None:
    path = small(tmp_path / "model.onnx")
    data = {k: v[:60] for k, v in data_for(path).items()}
    program = onnx_fhe.compile(path, data, pipeline=preset, backend="reference")
    assert any("'x'" in n and "calibrated on your data" in n for n in program.manifest.notes)
    expected = Session(load(path)).run_batched(data)["y"]
    found = program.run(data, mode="clear").outputs["y"]
    assert np.mean((expected - found) ** 2) < 0.03 * expected.var()


def test_without_data_the_data_are_asked_for(tmp_path: Path) -> None:
    path = without_quantizer("brevitas_mlp_4bit_shifted_qcdq", tmp_path, QUANTIZERS)
    with pytest.raises(DataError, match="needs calibration data"):
        PassManager.parse("normalize,import-qat").run(load(path))


@pytest.mark.parametrize("stem", ["brevitas_mlp_4bit_shifted_qonnx", "brevitas_cnn_4bit_qcdq"])
def test_what_is_missing_inside_is_still_refused(stem: str, tmp_path: Path) -> None:
    path = without_quantizer(stem, tmp_path, QUANTIZERS, inner=True)
    with pytest.raises(UnsupportedError) as caught:
        follows(path, data_for(path))
    assert "calibrate-missing=true" in caught.value.do
