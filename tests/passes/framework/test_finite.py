"""Numbers that stop being finite are found between passes, with the node and the cell."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

import onnx_fhe
from onnx_fhe.ir.errors import ModelError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes import Context, Pass, PassManager
from onnx_fhe.passes.framework.instruments import Verify


def normal(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def proto(body: str, **weights: np.ndarray) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["": 17]>\ng (float[N,4] x) => (float[N,3] y) {{ {body} }}'
    made = parser.parse_model(text)
    made.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), k) for k, a in weights.items())
    return made


def loaded(proto: onnx.ModelProto) -> ir.Model:
    """The model as it comes out of a file."""
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(proto, Path(folder) / "m.onnx")
        return load(Path(folder) / "m.onnx")


MLP = "[first] h = Gemm(x, w, b) [act] a = Relu(h) [last] y = MatMul(a, v)"
DATA = {"x": normal(100, 4, seed=1)}


def mlp(scale: float = 1) -> onnx.ModelProto:
    return proto(MLP, w=normal(4, 5) * np.float32(scale), b=normal(5), v=normal(5, 3))


def refused(
    model: onnx.ModelProto, data: dict[str, np.ndarray], node: str, pipeline: str = "balanced"
) -> ModelError:
    with pytest.raises(ModelError) as caught:
        onnx_fhe.compile(loaded(model), data, pipeline=pipeline, backend="reference")
    assert caught.value.where.node == node
    assert caught.value.where.op
    assert caught.value.do
    return caught.value


def test_inputs_too_large_to_be_summed():
    error = refused(mlp(), {"x": DATA["x"] * np.float32(1e38)}, "first")
    assert "= nan (" in error.found or "= inf (" in error.found or "= -inf (" in error.found


def test_large_inputs_whose_sums_are_finite_compile():
    data = {"x": DATA["x"] * np.float32(1e37)}
    wanted = run(loaded(mlp()), data)["y"].astype(np.float64)
    found = onnx_fhe.compile(loaded(mlp()), data, backend="reference").run(data).outputs["y"]
    assert (
        1 - ((found - wanted) ** 2).sum(axis=0) / ((wanted - wanted.mean(axis=0)) ** 2).sum(axis=0)
    ).min() > 0.95


@pytest.mark.parametrize(
    ("body", "node"),
    [
        ("h = MatMul(x, w) [scale] a = Mul(h, s) [last] y = MatMul(a, v)", "scale"),
        ("h = MatMul(x, w) [quotient] a = Div(h, z) [last] y = MatMul(a, v)", "quotient"),
    ],
)
def test_a_float_network_without_finite_numbers(body, node):
    weights = {"w": normal(4, 5) * np.float32(1e30), "s": np.full(5, 1e30, np.float32), "v": normal(5, 3)}
    weights = {k: a for k, a in weights.items() if f" {k})" in body}
    if "z)" in body:
        weights["z"] = np.array([1, 2, 0, 1, 1], np.float32)
    error = refused(proto(body, **weights), DATA, node)
    assert "samples first" in error.found


def test_constants_that_overflow_where_they_are_folded():
    body = "[together] m = MatMul(w, u) [first] h = MatMul(x, m) a = Relu(h) y = MatMul(a, v)"
    error = refused(
        proto(body, w=np.full((4, 5), 1e30, np.float32), u=np.full((5, 5), 1e30, np.float32), v=normal(5, 3)),
        DATA,
        "first",
    )
    assert "[0, 0] = inf (20 of 20 values)" in error.found


def test_what_is_no_number_in_the_file_is_named_with_its_node_and_cell():
    weights = normal(4, 5)
    weights[2, 3] = np.nan
    with pytest.raises(ModelError) as caught:
        loaded(proto(MLP, w=weights, b=normal(5), v=normal(5, 3)))
    assert (caught.value.where.node, caught.value.where.op) == ("first", "Gemm")
    assert "(2, 3): nan" in caught.value.found


@dataclass(frozen=True)
class Spoils(Pass):
    """A plug-in's pass after which a value, or a constant, is no number."""

    name: ClassVar[str] = "spoils"
    of: ClassVar[str] = "b"
    by: ClassVar[float] = np.nan

    def run(self, model: ir.Model, context: Context) -> bool:
        value = model.graph.initializers[self.of]
        assert value.const_value is not None
        value.const_value = ir.tensor(np.full_like(value.const_value.numpy(), self.by), name=self.of)
        return True


class Outgrows(Spoils):
    """Constants that are finite, and products that are not."""

    of: ClassVar[str] = "w"
    by: ClassVar[float] = 3e38


def test_a_pass_that_spoils_a_constant_is_named():
    with pytest.raises(ModelError, match="constant") as caught:
        PassManager([Spoils()], [Verify()]).run(loaded(mlp()))
    assert (caught.value.where.pass_name, caught.value.where.node) == ("spoils", "first")
    assert "'b'[0] = nan (5 of 5 values)" in caught.value.found


def test_a_pass_after_which_values_overflow_is_named():
    with pytest.raises(ModelError, match="value") as caught:
        PassManager([Outgrows()], [Verify(DATA)]).run(loaded(mlp()))
    assert (caught.value.where.pass_name, caught.value.where.node) == ("spoils", "first")
    PassManager([Outgrows()], [Verify()]).run(loaded(mlp()))  # without data nobody can know


def test_an_infinite_bound_and_values_that_are_rarely_none_are_fine():
    body = "h = MatMul(x, w) c = Clip(h, low) [log] a = Sqrt(c) y = MatMul(a, v)"
    model = proto(body, w=normal(4, 5), low=np.float32(-np.inf), v=normal(5, 3))
    program = onnx_fhe.compile(
        loaded(model), DATA, pipeline="normalize,quantize,lower-to-integer,fuse-tlu", backend="reference"
    )
    assert any("is not a finite number for" in n for n in program.notes)
    assert np.isfinite(program.run(DATA).outputs["y"]).all()
