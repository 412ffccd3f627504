"""Whether the noise model errs as Concrete's simulation and as real ciphertexts do: two-proportion tests.

    python benchmarks/noise_model.py [--model examples/digits_mlp.onnx] [--samples 300] [--encrypted 20]

Two circuits. A layer of lookups side by side, rounded approximately, whose results err independently of each
other: share of results that differ from the exact ones, in the noise model, in Concrete's simulation, and on
ciphertexts. And a whole network: share of raw outputs and of predictions that differ. |z| below 2 says that
nothing tells the two apart at 5 %.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir

import onnx_fhe
from onnx_fhe.analysis.noise.noise import NoisyModel
from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.circuits import find_backend
from onnx_fhe.ir import runtime
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.level import Level, set_level
from onnx_fhe.ir.matching import calibration_for
from onnx_fhe.ir.p_error import DEFAULT_P_ERROR
from onnx_fhe.ir.partition import partition
from onnx_fhe.running import Stopwatch, encrypted

ROOT = Path(__file__).resolve().parent.parent
P_ERRORS = (DEFAULT_P_ERROR, 1e-2, 1e-1)


def side_by_side(elements: int = 64, bits: int = 4, removed: int = 3) -> ir.Model:
    """Lookups without anything linear between them."""
    size = 2**bits
    top = size * 2**removed - 2 ** (removed - 1) - 1
    text = f"""
        <ir_version: 10, opset_import: ["": 21, "onnx_fhe": 1]>
        side (float[N, {elements}] x) => (float[N, {elements}] y) {{
            e = onnx_fhe.Encrypt <low = 0, high = {top}> (x)
            r = onnx_fhe.RoundBits <lsbs_to_remove = {removed}, mode = "approximate"> (e)
            t = onnx_fhe.TableLookup <step = {2**removed}> (r, table, first)
            y = onnx_fhe.Decrypt <low = 0, high = {size - 1}> (t)
        }}"""
    model = ir.from_onnx_text(text)
    constants = {"table": np.arange(size, dtype=np.float32)[None], "first": np.zeros(1, np.float32)}
    for name, array in constants.items():
        value = next(v for n in model.graph for v in n.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
        model.graph.register_initializer(value)
    for i, node in enumerate(model.graph):
        node.name = f"n{i}"
        node.outputs[0].shape = ir.Shape(["N", elements])
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    set_level(model, Level.INTEGER)
    return model


def z_score(first: np.ndarray, second: np.ndarray) -> float:
    """Of the difference of two shares (arrays of truth values)."""
    a, b = first.size, second.size
    both = (first.sum() + second.sum()) / (a + b)
    spread = math.sqrt(max(both * (1 - both) * (1 / a + 1 / b), 1e-300))
    return float((first.mean() - second.mean()) / spread)


def compare(
    model: ir.Model, values: dict[str, np.ndarray], p_error: float, encrypted_samples: int
) -> dict[str, object]:
    """Shares of results that differ from the exact ones."""
    parts = partition(model)
    circuit = find_backend("concrete").lower(model, LowerOptions(p_error=p_error))
    began = time.perf_counter()
    noisy = NoisyModel(parts.server, p_error)
    made = time.perf_counter() - began
    given = {v.name: values[v.name].astype(np.float32) for v in parts.server.graph.inputs}
    began = time.perf_counter()
    modelled = noisy.run(given, seed=1)
    ran = time.perf_counter() - began
    exact, simulated = circuit.clear(values), circuit.simulate(values)
    (name,) = exact
    found: dict[str, object] = {"p_error": p_error, "of_the_circuit": circuit.statistics().p_error}
    found["seconds_to_make"], found["seconds_per_1000"] = made, 1000 * ran / len(exact[name])
    real = None
    if encrypted_samples:
        session = circuit.session()
        session.keygen()
        some = {k: v[:encrypted_samples] for k, v in values.items()}
        real = encrypted(session, some, Stopwatch(), lambda *_: None)[0][name]
    for what in ("values", "predictions"):
        wrong = _wrong(what, modelled[name], exact[name]), _wrong(what, simulated[name], exact[name])
        found[what] = {"model": wrong[0].mean(), "simulated": wrong[1].mean(), "z": z_score(*wrong)}
        if real is not None:
            seen = _wrong(what, real, exact[name][:encrypted_samples])
            found[what] |= {"encrypted": seen.mean(), "z_encrypted": z_score(wrong[0], seen)}
    return found


def _wrong(what: str, found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    if what == "values":
        return np.asarray(found != exact)
    return np.asarray(found.argmax(axis=-1) != exact.argmax(axis=-1))


def main() -> None:
    """Compare, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=ROOT / "examples" / "digits_mlp.onnx")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--encrypted", type=int, default=0, help="samples on ciphertexts")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    report: dict[str, list[dict[str, object]]] = {"side_by_side": [], options.model.stem: []}
    model = side_by_side()
    (encrypt,) = partition(model).server.graph.inputs
    top = model.graph[0].attributes["high"].as_int()
    values = {encrypt.name or "": random.integers(0, top + 1, (options.samples, 64))}
    program = onnx_fhe.compile(options.model, options.model.with_suffix(".calibration.npz"))
    data = calibration_for(program.integer_model, read_npz(options.model.with_suffix(".calibration.npz")))
    data = {k: np.resize(v, (options.samples, *v.shape[1:])) for k, v in data.items()}
    network = runtime.run(program.parts.prologue, data)
    for p_error in P_ERRORS:
        report["side_by_side"].append(compare(model, values, p_error, options.encrypted))
        report[options.model.stem].append(compare(program.integer_model, network, p_error, options.encrypted))
    text = json.dumps(report, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
