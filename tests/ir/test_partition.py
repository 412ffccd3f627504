"""Splitting a model at the edges of its encrypted region."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_fhe.ir import runtime
from onnx_fhe.ir.errors import ModelError, UnsupportedError, VerificationError
from onnx_fhe.ir.level import Level, level_of
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.ir.partition import Parts, partition
from onnx_fhe.testing.integers import IntegerBuilder

HEADER = f'<ir_version: 10, opset_import: ["": {target_opset()}, "onnx_fhe": 1]>'


def model_of(body: str) -> ir.Model:
    model = ir.from_onnx_text(f"{HEADER}\n{body}")
    for i, node in enumerate(model.graph):
        node.name = node.name or f"n{i}"
    return model


SIMPLE = """
g (float[N,3] x) => (float[N,2] y)
<float[3] scale = {2.0, 2.0, 2.0}, float[2,3] w = {1.0, 2.0, 3.0, -1.0, 0.0, 1.0}, float[1] gain = {0.5}> {
  scaled = Mul(x, scale)
  q = Round(scaled)
  e = onnx_fhe.Encrypt <low = -4, high = 4> (q)
  a = Gemm <transB = 1> (e, w)
  d = onnx_fhe.Decrypt <low = -24, high = 24> (a)
  y = Mul(d, gain)
}"""


def names(values: object) -> list[str]:
    return [v.name for v in values]  # type: ignore[attr-defined]


def ops(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


def composed(parts: Parts, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    inner = runtime.run(parts.prologue, data)
    return runtime.run(parts.epilogue, {**data, **runtime.run(parts.server, inner)})


def assert_same(model: ir.Model, parts: Parts, data: dict[str, np.ndarray]) -> None:
    wanted, found = runtime.run(model, data), composed(parts, data)
    assert list(found) == names(model.graph.outputs)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    for part in (parts.prologue, parts.server, parts.epilogue):
        onnx.checker.check_model(runtime.to_proto(part), full_check=True)


def test_three_parts_and_their_interfaces() -> None:
    model = model_of(SIMPLE)
    parts = partition(model)
    assert ops(parts.prologue) == ["Mul", "Round", "Identity"]
    assert ops(parts.server) == ["Encrypt", "Gemm", "Decrypt"]
    assert ops(parts.epilogue) == ["Mul"]
    assert names(parts.prologue.graph.inputs) == ["x"]
    assert names(parts.prologue.graph.outputs) == names(parts.server.graph.inputs) == ["e"]
    assert names(parts.server.graph.outputs) == names(parts.epilogue.graph.inputs) == ["d"]
    assert [level_of(p) for p in (parts.prologue, parts.server, parts.epilogue)] == [
        Level.FLOAT,
        Level.INTEGER,
        Level.FLOAT,
    ]
    assert set(parts.server.graph.initializers) == {"w"}
    data = {"x": np.random.default_rng(0).uniform(-2, 2, (5, 3)).astype(np.float32)}
    assert_same(model, parts, data)


def test_the_model_itself_stays() -> None:
    model = model_of(SIMPLE)
    before = ir.to_onnx_text(model)
    partition(model)
    assert ir.to_onnx_text(model) == before


def test_the_batch_axis_stays_free() -> None:
    parts = partition(model_of(SIMPLE))
    for part in (parts.prologue, parts.server, parts.epilogue):
        for value in (*part.graph.inputs, *part.graph.outputs):
            assert value.shape is not None
            assert not isinstance(value.shape[0], int)


def test_input_straight_to_encryption_and_decryption_straight_to_output() -> None:
    b = IntegerBuilder()
    b.decrypt(b.dense(b.encrypt("x", (3,)), 2))
    model = b.model()
    parts = partition(model)
    assert ops(parts.prologue) == ["Identity"]
    assert ops(parts.epilogue) == []
    assert_same(model, parts, {"x": b.samples["x_q"].astype(np.float32)})


def test_several_inputs_and_outputs_keep_names_and_order() -> None:
    b = IntegerBuilder()
    left, right = b.encrypt("left", (3,)), b.encrypt("right", (3,))
    b.decrypt(b.op("Add", left, right), "sum")
    b.decrypt(b.op("Sub", right, left), "difference")
    model = b.model()
    parts = partition(model)
    assert names(parts.server.graph.inputs) == ["left_q", "right_q"]
    assert names(parts.server.graph.outputs) == ["sum", "difference"]
    assert ops(parts.server)[:2] == ["Encrypt", "Encrypt"]
    assert_same(model, parts, {k.removesuffix("_q"): v.astype(np.float32) for k, v in b.samples.items()})


def test_a_value_encrypted_twice() -> None:
    model = model_of("""
g (float[N,3] x) => (float[N,3] y) {
  e = onnx_fhe.Encrypt <low = 0, high = 4> (x)
  f = onnx_fhe.Encrypt <low = 0, high = 4> (x)
  a = Add(e, f)
  y = onnx_fhe.Decrypt <low = 0, high = 8> (a)
}""")
    parts = partition(model)
    assert names(parts.prologue.graph.outputs) == ["e", "f"]
    assert_same(model, parts, {"x": np.arange(6, dtype=np.float32).reshape(2, 3) % 5})


def test_what_bypasses_the_server_is_computed_again_by_the_epilogue() -> None:
    model = model_of("""
g (float[N,3] x, float[N,3] unused, float[N,3] late) => (float[N,3] y, float[N,3] late2) {
  q = Round(x)
  e = onnx_fhe.Encrypt <low = -9, high = 9> (q)
  a = Neg(e)
  d = onnx_fhe.Decrypt <low = -9, high = 9> (a)
  error = Sub(x, q)
  y = Sub(d, error)
  late2 = Neg(late)
}""")
    parts = partition(model)
    assert names(parts.epilogue.graph.inputs) == ["d", "x", "late"]
    assert ops(parts.epilogue) == ["Round", "Sub", "Sub", "Neg"]
    rng = np.random.default_rng(0)
    data = {k: rng.normal(size=(4, 3)).astype(np.float32) for k in ("x", "unused", "late")}
    assert_same(model, parts, data)


REFUSED = [
    ("y = Neg(x)", ModelError, "no encrypted region"),
    (
        """e = onnx_fhe.Encrypt(x)
  d = onnx_fhe.Decrypt(e)
  f = onnx_fhe.Encrypt(d)
  y = onnx_fhe.Decrypt(f)""",
        UnsupportedError,
        "depends on a decrypted one",
    ),
    (
        "e = onnx_fhe.Encrypt(x)\n  f = onnx_fhe.Encrypt(e)\n  y = onnx_fhe.Decrypt(f)",
        VerificationError,
        "not the client's",
    ),
    (
        "e = onnx_fhe.Encrypt(x)\n  d = onnx_fhe.Decrypt(e)\n  y = Neg(e)",
        VerificationError,
        "leaves the model",
    ),
    (
        "e = onnx_fhe.Encrypt(x)\n  a = Add(e, x)\n  y = onnx_fhe.Decrypt(a)",
        VerificationError,
        "meets a clear one",
    ),
    ("e = onnx_fhe.Encrypt(x)\n  y = onnx_fhe.Decrypt(x)", VerificationError, "not encrypted"),
]


@pytest.mark.parametrize(("body", "kind", "what"), REFUSED)
def test_refusals(body: str, kind: type[Exception], what: str) -> None:
    with pytest.raises(kind, match=what):
        partition(model_of(f"g (float[N,3] x) => (float[N,3] y) {{\n  {body}\n}}"))
