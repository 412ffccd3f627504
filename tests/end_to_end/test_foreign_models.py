"""Models as they come: other number types, single operators, samples on another axis, computed sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import onnx_fhe
from onnx_fhe.ir.errors import ModelError, UnsupportedError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.opsets import target_opset
from onnx_fhe.ir.runtime import run
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.normalize.normalize import Normalize
from onnx_fhe.passes.quantize.activations import fit_quantizer

FINE = "quantize{weights=8 activations=8 inputs=8 operands=6},lower-to-integer,fuse-tlu"


def normal(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def saved(tmp_path: Path, body: str, opset: int = 17, **weights: object) -> Path:
    """A file of a graph in ONNX text."""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "ai.onnx.ml": 1]>\ng {body}')
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.save(proto, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def normalized(path: Path) -> ir.Model:
    """Its normal form, which computes the same for several samples, whatever their number."""
    given = load(path)
    sizes = {str(i.name): [5, *list(i.shape or [])[1:]] for i in given.graph.inputs}
    data = {}
    for number, value in enumerate(given.graph.inputs):
        array = normal(*sizes[str(value.name)], seed=number)
        kind = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        data[str(value.name)] = (
            np.abs(array * 3) if kind.kind in "iu" else array > 0 if kind.kind == "b" else array
        ).astype(kind)
    wanted = None
    if not isinstance(given.graph.inputs[0].shape[0], int):
        wanted = run(given, data)
    Normalize()(given)
    verify(given)
    found = run(given, data)
    for name, array in (wanted or {}).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4)
    return given


def ops(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph]


def compiled_error(path: Path, **data: np.ndarray) -> tuple[float, int]:
    """Error of the first output over its deviation, and the lookups, of what a file compiles to."""
    program = onnx_fhe.compile(path, data, pipeline=FINE, backend="reference")
    result = program.run({k: v[:32] for k, v in data.items()})
    wanted = run(load(path), {k: v[:32] for k, v in data.items()})
    name = next(iter(wanted))
    found, array = (np.asarray(d[name], np.float64) for d in (result.outputs, wanted))
    assert found.shape == array.shape
    error = float(np.sqrt(((found - array) ** 2).mean() / max(array.var(), 1e-12)))
    return error, program.statistics.programmable_bootstraps


def typed_mlp(kind: int) -> onnx.ModelProto:
    """A dense network that computes in ``kind``."""
    tensors = [
        helper.make_tensor(n, kind, a.shape, a.ravel().tolist())
        for n, a in (("w", normal(6, 8)), ("v", normal(8, 3, seed=1)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    ports = [[helper.make_tensor_value_info(n, kind, ["N", k])] for n, k in (("x", 6), ("y", 3))]
    graph = helper.make_graph(nodes, "g", *ports, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16", "DOUBLE"])
def test_other_precisions_are_computed_in_single(kind, tmp_path):
    onnx.save(typed_mlp(getattr(TensorProto, kind)), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    declared = ir.DataType.FLOAT if kind == "BFLOAT16" else ir.DataType[kind]
    assert [v.dtype for v in (*model.graph.inputs, *model.graph.outputs)] == [declared] * 2
    assert {v.dtype for v in model.graph.initializers.values()} == {ir.DataType.FLOAT}
    data = normal(64, 6, seed=2).astype(declared.numpy())
    program = onnx_fhe.compile(tmp_path / "m.onnx", data, pipeline=FINE, backend="reference")
    found = program.run(data).outputs["y"]
    assert found.dtype == declared.numpy()
    wanted = np.maximum(data.astype(np.float32) @ normal(6, 8), 0) @ normal(8, 3, seed=1)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def test_a_double_that_single_cannot_hold_is_refused(tmp_path):
    proto = typed_mlp(TensorProto.DOUBLE)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((6, 8), 1e300), "w"))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="too large for float32"):
        load(tmp_path / "m.onnx")


def test_half_precision_inside_a_branch(tmp_path):
    path = saved(
        tmp_path,
        """(float16[N,4] x) => (float16[N,4] y)
        { y = If(c) <then_branch = t () => (float16[N,4] a) { a = Relu(x) },
                     else_branch = e () => (float16[N,4] b) { b = Neg(x) }> }""",
        c=np.asarray(True),
    )
    data = normal(3, 4).astype(np.float16)
    np.testing.assert_array_equal(run(load(path), {"x": data})["y"], np.maximum(data, 0))


SINGLE: dict[str, tuple[str, dict[str, np.ndarray], float]] = {
    "layer norm": ("y = LayerNormalization(x, w)", {"w": normal(6)}, 0.1),
    "lp pool": ("y = LpPool<kernel_shape=[2,2], p=3, ceil_mode=1, strides=[2,2]>(x)", {}, 0.25),
    "log softmax": ("y = LogSoftmax<axis=-1>(x)", {}, 0.1),
    "a larger constant": (
        "m = Slice(x, zero, one, three) y = Add(c, m)",
        {"c": normal(1, 2, 5, 4), "zero": np.int64([0]), "one": np.int64([1]), "three": np.int64([3])},
        0.02,
    ),
    "cumulative sum": ("y = CumSum(x, a)", {"a": np.int64(2)}, 0.02),
    "hardmax": ("y = Hardmax<axis=-1>(x)", {}, 0.3),
    "average over blocks": (
        "b = Reshape(x, s) y = AveragePool<kernel_shape=[2,3,2], pads=[1,0,0,0,1,1]>(b)",
        {"s": np.int64([-1, 2, 1, 5, 6])},
        0.02,
    ),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_model_of_one_operator(name, tmp_path):
    body, weights, most = SINGLE[name]
    path = saved(tmp_path, f"(float[1,2,5,6] x) => (float[a,b,c,d] y) {{ {body} }}", 18, **weights)
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output[0])
    onnx.save(proto, path)
    error, _ = compiled_error(path, x=normal(64, 2, 5, 6))
    assert error < most


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_the_place_of_the_largest(op, last, tmp_path):
    body = f"(float[N,4,3] x) => (int64[N,1,3] y) {{ y = {op}<axis=1, select_last_index={last}>(x) }}"
    path = saved(tmp_path, body)
    assert "MatMul" in ops(normalized(path))
    ties = np.random.default_rng(0).integers(0, 3, (64, 4, 3)).astype(np.float32)
    error, lookups = compiled_error(path, x=ties)
    assert error == 0
    assert lookups > 0


@pytest.mark.parametrize(
    ("op", "kind"), [("Greater", "float"), ("And", "bool"), ("BitwiseAnd", "int32"), ("Max", "int64")]
)
def test_conditions_and_whole_numbers_come_and_go(op, kind, tmp_path):
    result = "bool" if op in ("Greater", "And") else kind
    body = f"({kind}[N,5] x, {kind}[N,5] z) => ({result}[N,5] y) {{ y = {op}(x, z) }}"
    path = saved(tmp_path, body, opset=18)
    random = np.random.default_rng(0)
    numpy_kind = ir.DataType[kind.upper()].numpy()
    data = {k: random.integers(0, 2 if kind == "bool" else 8, (64, 5)).astype(numpy_kind) for k in "xz"}
    error, lookups = compiled_error(path, **data)
    assert error == 0
    assert lookups > 0


def test_whole_numbers_keep_their_grid():
    counts = np.random.default_rng(0).integers(-3, 12, (200, 1)).astype(np.float32)
    quantizer = fit_quantizer(counts, 4, "mse", 99.9, False)
    assert quantizer.scale.item() == 1
    np.testing.assert_array_equal(quantizer.apply(counts), counts)
    assert fit_quantizer(counts / 3, 4, "mse", 99.9, False).scale.item() != 1


ELSEWHERE = {
    "time first": """(float[N,3,4] x) => (float[N,5] y) {
        t = Transpose<perm=[1,0,2]>(x) p = MatMul(t, w) a, b, c = Split<axis=0>(p)
        h = Tanh(a) i = MatMul(h, r) j = Add(i, b) k = Tanh(j) l = MatMul(k, r) m = Add(l, c)
        n = Tanh(m) o = MatMul(n, r) y = Squeeze(o, zero) }""",
    "samples and heads in one axis": """(float[N,3,4] x) => (float[N,3,5] y) {
        t = Transpose<perm=[1,0,2]>(x) p = MatMul(t, q) s = Reshape(p, split) u = Transpose<perm=[1,0,2]>(s)
        v = Softmax<axis=-1>(u) w1 = Transpose<perm=[1,0,2]>(v) z = Reshape(w1, join)
        f = Gemm(z, w) g = Reshape(f, back) y = Transpose<perm=[1,0,2]>(g) }""",
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_samples_on_another_axis(name, tmp_path):
    weights = {"w": normal(4, 5), "r": normal(5, 5, seed=1), "zero": np.int64([0]), "q": normal(4, 4, seed=2)}
    weights |= {"split": np.int64([3, -1, 2]), "join": np.int64([-1, 4]), "back": np.int64([3, -1, 5])}
    path = saved(tmp_path, ELSEWHERE[name], **weights)
    model = normalized(path)
    assert all(v.shape[0] == "N" for n in model.graph for v in n.outputs)
    assert not Normalize()(model).modified
    error, _ = compiled_error(path, x=normal(96, 3, 4))
    assert error < 0.1


def test_what_cannot_be_lifted_stays(tmp_path):
    body = """(float[N,3,4] x) => (float[N,3,4] y) {
        t = Transpose<perm=[1,0,2]>(x) a = MatMul(t, w) k, i = TopK<axis=0>(a, three) b = MatMul(k, w)
        y = Transpose<perm=[1,0,2]>(b) }"""
    path = saved(tmp_path, body, w=normal(4, 4), three=np.int64([3]))
    assert "TopK" in ops(normalized(path))
    with pytest.raises(UnsupportedError, match="TopK cannot be computed"):
        onnx_fhe.compile(path, normal(8, 3, 4), pipeline=FINE, backend="reference")


def test_sizes_that_do_not_follow_the_batch_are_constants(tmp_path):
    body = """(float[N,4,6] x) => (float[N,4,6] y) {
        s = Shape(x) d = Gather(s, two) f = Cast<to=1>(d) r = Sqrt(f) a = MatMul(x, w) b = Div(a, r)
        c = Softmax<axis=-1>(b) e = Expand(c, s) y = MatMul(e, w) }"""
    model = normalized(saved(tmp_path, body, two=np.int64(2), w=normal(6, 6)))
    assert not {"Shape", "Gather", "Cast", "Sqrt"} & set(ops(model))


def test_a_fixed_batch_is_told_from_an_axis_of_its_size(tmp_path):
    body = "(float[4,3] x) => (float[4,3] y) { s = Slice(x, a, b) y = Relu(s) }"
    with pytest.raises(UnsupportedError, match="samples of a batch depend on each other"):
        normalized(saved(tmp_path, body, a=np.int64([0]), b=np.int64([4])))
    body = '(float[4,3] x) => (float[4,3] y) { y = ScatterND<reduction="min">(x, i, u) }'
    with pytest.raises(UnsupportedError, match="samples of a batch depend on each other"):
        normalized(saved(tmp_path, body, opset=18, i=np.int64([[1]]), u=np.full((1, 3), 5, np.float32)))


def test_numbers_outside_a_domain_do_not_hide_the_batch(tmp_path):
    model = normalized(saved(tmp_path, "(float[3,2] x) => (float[3,2] y) { y = Acos(x) }"))
    assert model.graph.inputs[0].shape[0] == "N"


def test_scattering_what_is_computed_is_no_move(tmp_path):
    body = '(float[N,4] x) => (float[N,4] y) { y = ScatterElements<axis=1, reduction="min">(x, i, u) }'
    proto = saved(tmp_path, body, opset=18, i=np.int64([[1]]), u=np.float32([[0.5]]))
    data = normal(64, 4)
    with pytest.raises(UnsupportedError, match="depend on each other"):  # the first sample's place only
        onnx_fhe.compile(proto, data, pipeline=FINE, backend="reference")


def test_a_tensor_without_elements_is_refused_by_name(tmp_path):
    body = "(float[N,4] x) => (float[N,3] y) { s = Slice(x, a, a, a) y = MatMul(s, w) }"
    path = saved(tmp_path, body, a=np.int64([1]), w=np.zeros((0, 3), np.float32))
    with pytest.raises(UnsupportedError, match="has no elements") as caught:
        onnx_fhe.compile(path, normal(8, 4), pipeline=FINE, backend="reference")
    assert caught.value.where.op == "Slice"


def test_a_recurrent_cell_is_refused_by_name_wherever_it_stands(tmp_path):
    body = """(float[3,N,4] x) => (float[N,2] y) {
        o, h = GRU<hidden_size=5>(x, w, r) s = Squeeze(h, a) y = MatMul(s, v) }"""
    weights = {"w": normal(1, 15, 4), "r": normal(1, 15, 5), "a": np.int64([0]), "v": normal(5, 2)}
    path = saved(tmp_path, body, **weights)
    with pytest.raises(UnsupportedError, match="GRU cannot be computed on encrypted data") as caught:
        onnx_fhe.compile(path, normal(3, 64, 4), pipeline=FINE, backend="reference")
    assert "unroll" in caught.value.do


def test_an_end_of_all_the_rest_between_layers(tmp_path):
    body = """(float[N,4] x) => (float[N,2] y) {
        h = MatMul(x, w) r = Relu(h) s = Slice(r, one, rest, one) y = MatMul(s, v) }"""
    weights = {"w": normal(4, 5), "v": normal(4, 2), "one": np.int64([1]), "rest": np.int64([2**63 - 1])}
    error, _ = compiled_error(saved(tmp_path, body, **weights), x=normal(64, 4))
    assert error < 0.05


def test_an_input_that_is_returned_as_it_is(tmp_path):
    body = """(float[N,4] x) => (float[N,2,4] y, float[N,4] z) {
        u = Unsqueeze(x, one) y = Tile(u, t) z = Identity(x) }"""
    error, _ = compiled_error(
        saved(tmp_path, body, one=np.int64([1]), t=np.int64([1, 2, 1])), x=normal(64, 4)
    )
    assert error < 0.02


@pytest.mark.parametrize("norm", ["L1", "L2", "MAX"])
@pytest.mark.parametrize("opset", [9, 21])
def test_normalizers_keep_signs(norm, opset, tmp_path):
    body = f"""(float[N,4] x) => (float[N,3] y) {{
        s = ai.onnx.ml.Scaler<offset=[0.1], scale=[2.0]>(x) n = ai.onnx.ml.Normalizer<norm="{norm}">(s)
        y = MatMul(n, w) }}"""
    error, _ = compiled_error(
        saved(tmp_path, body, opset=opset, w=normal(4, 3)), x=normal(64, 4) + (norm == "MAX") * 3
    )
    assert error < 0.05


def test_an_opset_newer_than_its_operators(tmp_path):
    newest = onnx.defs.onnx_opset_version()
    body = "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
    path = saved(tmp_path, body, opset=newest)
    assert load(path).graph.opset_imports[""] == target_opset()
    with pytest.raises(ModelError, match="newer than the installed onnxruntime"):
        load(saved(tmp_path, body, opset=newest + 1))


def test_initializers_that_an_old_file_does_not_list_as_inputs(tmp_path):
    path = saved(tmp_path, "(float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", opset=8, w=normal(4, 3))
    proto = onnx.load(path)
    proto.ir_version = 3
    onnx.save(proto, path)
    assert ops(load(path)) == ["MatMul"]


def test_a_table_does_not_move_behind_a_pool_that_could_not_compare_its_inputs(tmp_path):
    body = """(float[N,2,6,6] x) => (float[N,3] y) {
        a = Conv<auto_pad="SAME_UPPER">(x, k) r = Relu(a) c = Conv<auto_pad="SAME_UPPER">(r, l) s = Relu(c)
        p = MaxPool<kernel_shape=[3,3], strides=[3,3]>(s) f = Flatten(p) y = MatMul(f, w) }"""
    weights = {"k": normal(6, 2, 5, 5), "l": normal(2, 6, 5, 5, seed=1), "w": normal(8, 3, seed=2)}
    data = normal(24, 2, 6, 6)
    pipeline = "quantize{weights=8 activations=8 inputs=8},lower-to-integer,fuse-tlu,move-tables"
    path = saved(tmp_path, body, **weights)
    program = onnx_fhe.compile(path, data, pipeline=pipeline, backend="reference", check_samples=4)
    wanted = run(load(path), {"x": data})["y"]
    assert np.abs(program.run(data).outputs["y"] - wanted).max() < 0.2 * np.abs(wanted).max()


@pytest.mark.parametrize("pipeline", [FINE, "balanced"])
def test_one_number_for_each_sample(pipeline, tmp_path):
    path = saved(tmp_path, "(float[3] x) => (float[3] y) { a = Gelu(x) y = Add(a, x) }", opset=20)
    model = load(path)
    Normalize()(model)
    assert not Normalize()(model).modified
    data = normal(96)
    program = onnx_fhe.compile(path, data, pipeline=pipeline, backend="reference")
    wanted = run(model, {"x": data})["y"]
    assert np.abs(program.run(data).outputs["y"] - wanted).max() < 0.15 * np.abs(wanted).max()


def test_a_resize_to_sizes_that_hold_the_batch(tmp_path):
    body = """(float[1,2,3,4] x) => (float[1,2,6,8] y) {
        r = Relu(x) y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric">(r, , , sizes) }"""
    path = saved(tmp_path, body, sizes=np.int64([1, 2, 6, 8]))
    model = normalized(path)
    assert model.graph.inputs[0].shape[0] == "N"
    data = normal(5, 2, 3, 4)
    wanted = np.maximum(data, 0).repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(run(model, {"x": data})["y"], wanted)
