"""A batch of one that the graph folds away is one sample; a larger one that is baked in has its number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import onnx_fhe
from onnx_fhe.ir.errors import UnsupportedError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.runtime import run
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.normalize.normalize import Normalize

FINE = "normalize,quantize{weights=8 activations=8 inputs=8 operands=7},lower-to-integer,fuse-tlu"


def normal(*size: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=size) * 0.4).astype(np.float32)


def saved(tmp_path: Path, body: str, **weights: object) -> Path:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\ng {body}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), k) for k, a in weights.items())
    onnx.save(proto, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


WEIGHTS = {
    "w": normal(6, 6, seed=1),
    "v": normal(6, 2, seed=2),
    "u": normal(3, 3, seed=3),
    "k": normal(2, 1, 3, 3, seed=4),
    "q": normal(8, 2, seed=5),
    "o": normal(12, 2, seed=6),
    "wq": normal(3, 2, seed=7),
    "wk": normal(3, 2, seed=8),
    "rows": np.int64([2, 3]),
    "row": np.int64([1, -1]),
    "zero": np.int64([0]),
    "first": np.int64(0),
    "flat": np.int64([8]),
    "two": np.int64([2]),
    "steps": np.int64([-1, 3]),
    "all": np.int64([1, 12]),
}
HEAD = "h = Gemm(x, w) a = Relu(h)"
CASES = {
    "literal": (
        "1,6",
        "1,2",
        f"{HEAD} r = Reshape(a, rows) m = MatMul(r, u) z = Reshape(m, row) y = Gemm(z, v)",
    ),
    "squeeze": (
        "1,6",
        "1,2",
        f"{HEAD} r = Squeeze(a, zero) m = Tanh(r) z = Unsqueeze(m, zero) y = Gemm(z, v)",
    ),
    "gather": ("1,6", "2", f"{HEAD} r = Gather<axis = 0>(a, first) y = MatMul(r, v)"),
    "slice": ("1,6", "1,2", f"{HEAD} r = Slice(a, zero, one, zero) y = Gemm(r, v)"),
    "merged": (
        "1,4,3",
        "1,2",
        "r = Reshape(x, steps) m = MatMul(r, u) a = Relu(m) z = Reshape(a, all) y = Gemm(z, o)",
    ),
    "transpose": (
        "1,4,3",
        "1,2",
        "t = Transpose<perm = [1, 0, 2]>(x) m = MatMul(t, u) a = Relu(m) b = Transpose<perm = [1, 0, 2]>(a)"
        " f = Flatten(b) y = Gemm(f, o)",
    ),
    "attention": (
        "1,4,3",
        "1,2",
        "r = Reshape(x, steps) i = MatMul(r, wq) j = MatMul(r, wk) c = MatMul(r, u)"
        " t = Transpose<perm = [1, 0]>(j) d = MatMul(i, t) p = Softmax<axis = 1>(d) e = MatMul(p, c)"
        " f = Reshape(e, all) y = Gemm(f, o)",
    ),
    "no batch in outputs": ("1,6", "2", f"{HEAD} g = Gemm(a, v) y = Reshape(g, two)"),
    "one number": ("1,6", "", f"{HEAD} y = ReduceSum<keepdims = 0>(a)"),
    "mean": ("1,6", "2", f"{HEAD} r = ReduceMean<axes = [0], keepdims = 0>(a) y = MatMul(r, v)"),
    "flatten": ("1,2,3", "1,2", "f = Flatten<axis = 0>(x) h = Gemm(f, w) a = Relu(h) y = Gemm(a, v)"),
    "image": ("1,1,4,4", "1,2", "h = Conv(x, k) a = Relu(h) r = Reshape(a, row) y = Gemm(r, q)"),
    "image, flat": ("1,1,4,4", "2", "h = Conv(x, k) a = Relu(h) r = Reshape(a, flat) y = MatMul(r, q)"),
    "concat": (
        "1,6",
        "1,2",
        f"{HEAD} c = Concat<axis = 0>(a, h) m = ReduceMax<axes = [0], keepdims = 1>(c) y = Gemm(m, v)",
    ),
    "declared free": (
        "N,6",
        "N,2",
        f"{HEAD} r = Reshape(a, rows) m = MatMul(r, u) z = Reshape(m, row) y = Gemm(z, v)",
    ),
}


def case(tmp_path: Path, name: str) -> Path:
    x, y, body = CASES[name]
    output = f"float[{y}] y" if y else "float y"
    weights = {
        k: a for k, a in (WEIGHTS | {"one": np.int64([1])}).items() if f" {k})" in body or f" {k}," in body
    }
    return saved(tmp_path, f"(float[{x}] x) => ({output}) {{ {body} }}", **weights)


def data_for(path: Path, samples: int, seed: int = 9) -> dict[str, np.ndarray]:
    shape = [d for d in list(load(path).graph.inputs[0].shape or [])[1:] if isinstance(d, int)]
    return {"x": normal(samples, *shape, seed=seed) * 2}


@pytest.mark.parametrize("name", CASES)
def test_each_sample_gives_what_it_gives_alone(name, tmp_path):
    path = case(tmp_path, name)
    model, data = load(path), data_for(path, 5)
    alone = [run(model, {"x": data["x"][i : i + 1]})["y"] for i in range(5)]
    has_axis = alone[0].ndim and len(alone[0]) == 1
    wanted = np.concatenate(alone) if has_axis else np.stack(alone)
    np.testing.assert_array_equal(run(model, data)["y"], wanted)
    Normalize()(model)
    verify(model)
    assert [str(v.shape[0]) for v in (*model.graph.inputs, *model.graph.outputs)] == ["N", "N"]
    np.testing.assert_allclose(run(model, data)["y"], wanted, rtol=1e-4, atol=1e-5)
    assert not Normalize()(model).modified


@pytest.mark.parametrize("name", CASES)
def test_it_compiles_for_one_sample_a_call(name, tmp_path):
    path = case(tmp_path, name)
    data = data_for(path, 64)
    found, wanted = (
        onnx_fhe.compile(path, data, pipeline=FINE, backend="reference").run(data).outputs["y"],
        run(load(path), data)["y"],
    )
    assert found.shape == wanted.shape
    assert 1 - ((found - wanted) ** 2).mean() / wanted.var() > 0.95


@pytest.mark.usefixtures("small_keys")
@pytest.mark.parametrize("name", ["literal", "image, flat"])
def test_it_runs_encrypted(name, tmp_path):
    pytest.importorskip("concrete.fhe")
    path = case(tmp_path, name)
    data = data_for(path, 64)
    pipeline = "normalize,quantize{weights=2 activations=2 inputs=2},lower-to-integer,fuse-tlu"
    result = onnx_fhe.compile(path, data, pipeline=pipeline, check_samples=4).encrypted({"x": data["x"][:2]})
    assert result.outputs["y"].shape == (2, 2)
    np.testing.assert_allclose(result.outputs["y"], result.expected["y"], rtol=1e-5)


def test_layers_keep_their_names(tmp_path):
    body = "[one] h = Gemm(x, w) a = Relu(h) [two] g = Gemm(a, v) y = Reshape(g, s)"
    weights = {"w": WEIGHTS["w"], "v": WEIGHTS["v"], "s": np.int64([2])}
    path = saved(tmp_path, f"(float[1,6] x) => (float[2] y) {{ {body} }}", **weights)
    model = load(path)
    Normalize()(model)
    assert [n.name for n in model.graph if n.op_type == "Gemm"] == ["one", "two"]


BAKED = {
    "bias": ("[place] p = Add(a, c) y = Gemm(p, v)", {"c": normal(8, 6)}),
    "layout": ("[place] r = Reshape(a, t) z = Relu(r) p = Transpose(z) s = Reshape(p, back) y = Gemm(s, v)",
               {"t": np.int64([6, 8]), "back": np.int64([8, 6])}),
    "mean": ("[place] m = ReduceMean<axes = [0]>(a) p = Sub(a, m) y = Gemm(p, v)", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAKED)
def test_a_batch_that_is_baked_in_is_named_with_its_number(name, tmp_path):
    body, weights = BAKED[name]
    path = saved(
        tmp_path,
        f"(float[8,6] x) => (float[8,2] y) {{ {HEAD} {body} }}",
        w=WEIGHTS["w"],
        v=WEIGHTS["v"],
        **weights,
    )
    with pytest.raises(UnsupportedError, match="batch of 8 is baked in") as caught:
        onnx_fhe.compile(path, normal(16, 6), pipeline=FINE, backend="reference")
    assert caught.value.where.node == "place"


@pytest.mark.parametrize("declared", ["8", "N"])
def test_a_batch_in_a_reshape_alone_is_opened(declared, tmp_path):
    body = f"(float[{declared},6] x) => (float[{declared},2] y) {{ {HEAD} r = Reshape(a, t) y = Gemm(r, v) }}"
    path = saved(tmp_path, body, w=WEIGHTS["w"], v=WEIGHTS["v"], t=np.int64([8, -1]))
    data = {"x": normal(24, 6)}
    found = onnx_fhe.compile(path, data, pipeline=FINE, backend="reference").run(data).outputs["y"]
    model = load(path)
    wanted = np.concatenate([run(model, {"x": data["x"][i : i + 8]})["y"] for i in (0, 8, 16)])
    np.testing.assert_allclose(found, wanted, atol=0.05 * np.abs(wanted).max())


def test_a_free_batch_with_a_number_in_a_constant_is_named(tmp_path):
    body = f"(float[N,6] x) => (float[N,2] y) {{ {HEAD} [place] p = Add(a, c) y = Gemm(p, v) }}"
    path = saved(tmp_path, body, w=WEIGHTS["w"], v=WEIGHTS["v"], c=normal(8, 6))
    with pytest.raises(UnsupportedError, match="batch of 8 is baked in") as caught:
        onnx_fhe.compile(path, normal(16, 6), pipeline=FINE, backend="reference")
    assert (caught.value.where.node, caught.value.where.op) == ("place", "Add")


def test_tiny_values_do_not_hide_that_samples_are_mixed(tmp_path):
    """Differences are measured against the values, not against one."""
    body = f"{HEAD} [place] m = ReduceMean<axes = [0]>(a) p = Sub(a, m) y = Mul(p, s)"
    path = saved(
        tmp_path, f"(float[N,6] x) => (float[N,6] y) {{ {body} }}", w=WEIGHTS["w"], s=np.float32(1e-12)
    )
    with pytest.raises(UnsupportedError, match="depend on each other") as caught:
        onnx_fhe.compile(path, normal(16, 6), pipeline=FINE, backend="reference")
    assert caught.value.where.node == "place"


def test_an_output_that_is_constant_has_no_samples(tmp_path):
    body = f"(float[N,6] x) => (float[N,2] y, float[3] c) {{ {HEAD} y = Gemm(a, v) c = Add(d, d) }}"
    path = saved(tmp_path, body, w=WEIGHTS["w"], v=WEIGHTS["v"], d=normal(3))
    data = {"x": normal(300, 6)}
    found = onnx_fhe.compile(path, data, pipeline=FINE, backend="reference").run(data).outputs
    assert found["y"].shape == (300, 2)
    np.testing.assert_array_equal(found["c"], 2 * normal(3))


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("op", ["LSTM", "If", "NonZero"])
def test_an_operator_that_is_at_fault_is_named_before_the_batch(op, batch, tmp_path):
    weights = {"w": normal(6, 6), "v": normal(6, 2), "none": np.float32(0), "zero": np.int64([0])}
    first = helper.make_node("Gemm", ["x", "w"], ["h"])
    if op == "LSTM":
        weights |= {"m": normal(1, 24, 6), "r": normal(1, 24, 6)}
        body = [
            helper.make_node("Unsqueeze", ["h", "zero"], ["s"]),
            helper.make_node("LSTM", ["s", "m", "r"], ["", "e"], name="fault", hidden_size=6),
            helper.make_node("Squeeze", ["e", "zero"], ["g"]),
        ]
    elif op == "If":
        branches = {
            f"{which}_branch": helper.make_graph(
                [helper.make_node(kind, ["h"], [kind])], kind, [], [helper.make_empty_tensor_value_info(kind)]
            )
            for which, kind in (("then", "Relu"), ("else", "Neg"))
        }
        body = [
            helper.make_node("ReduceSum", ["h"], ["s"], keepdims=0),
            helper.make_node("Greater", ["s", "none"], ["c"]),
            helper.make_node("If", ["c"], ["g"], name="fault", **branches),
        ]
    else:
        body = [
            helper.make_node("NonZero", ["h"], ["i"], name="fault"),
            helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["f"], ["e"], axes=[1], keepdims=1),
            helper.make_node("Add", ["h", "e"], ["g"]),
        ]
    infos = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s)]
        for n, s in (("x", [batch, 6]), ("y", [batch if op != "NonZero" else "M", 2]))
    ]
    used = {i for n in body for i in n.input} | {"w", "v"}
    graph = helper.make_graph(
        [first, *body, helper.make_node("Gemm", ["g", "v"], ["y"])],
        "g",
        *infos,
        [numpy_helper.from_array(np.asarray(a), k) for k, a in weights.items() if k in used],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "m.onnx",
    )
    with pytest.raises(UnsupportedError, match=f"{op} cannot be computed") as caught:
        onnx_fhe.compile(tmp_path / "m.onnx", normal(16, 6), pipeline="balanced", backend="reference")
    assert caught.value.where.node == "fault"
