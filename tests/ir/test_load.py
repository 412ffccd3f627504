"""Loading: what comes back, and each thing that is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnx_fhe.ir import convert, load
from onnx_fhe.ir.errors import ModelError
from onnx_fhe.ir.guard import FileLimits
from onnx_fhe.ir.level import Level, level_of
from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.runtime import run
from onnx_fhe.ir.save import save

DENSE = """
<ir_version: {ir}, opset_import: ["": {opset}]>
g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {{1, 2, 3, 4, 5, 6}}> {{
    h = MatMul(x, w)
    s = Softmax(h)
    c = Constant<value_floats = [0.5, 0.25]>()
    y = Mul(s, c)
}}
"""


def dense(opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    return parser.parse_model(DENSE.format(ir=ir_version, opset=opset))


def put(proto: onnx.ModelProto, folder, name: str = "m.onnx"):
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def refused(path, limits: FileLimits | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load.load(path, limits)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 15, 17, 18, 21, target_opset()])
def test_every_opset_comes_back_in_the_one_opset_with_the_same_outputs(opset, tmp_path):
    proto = dense(opset)
    if opset < 12:  # Constant had only a tensor then
        proto.graph.node[2].attribute[0].CopyFrom(
            helper.make_attribute("value", numpy_helper.from_array(np.float32([0.5, 0.25])))
        )
    model = load.load(put(proto, tmp_path))
    assert model.opset_imports[""] == target_opset()
    assert model.ir_version == target_ir_version()
    x = {"x": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)}
    np.testing.assert_allclose(run(model, x)["y"], run(proto, x)["y"], rtol=1e-6)


def test_constants_become_initializers_and_nodes_get_unique_names(tmp_path):
    proto = dense()
    proto.graph.node[0].name = proto.graph.node[1].name = "twice"
    model = load.load(put(proto, tmp_path, "some name.onnx"))
    assert [n.op_type for n in model.graph] == ["MatMul", "Softmax", "Mul"]
    assert [n.name for n in model.graph] == ["twice", "twice_1", "Mul"]
    assert model.metadata_props["onnx_fhe.file"] == "some name.onnx"


def test_initializers_are_no_inputs(tmp_path):
    proto = dense(11, ir_version=3)
    proto.graph.node[2].attribute[0].CopyFrom(
        helper.make_attribute("value", numpy_helper.from_array(np.float32([0.5, 0.25])))
    )
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 2]))
    model = load.load(put(proto, tmp_path))
    assert [i.name for i in model.graph.inputs] == ["x"]
    assert "w" in model.graph.initializers


def test_local_functions_are_inlined_even_in_another_opset(tmp_path):
    proto = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 17, "mine": 1]>
        g (float[N,3] x) => (float[N,3] y) { y = mine.twice(x) }
        <domain: "mine", opset_import: ["": 17]>
        twice (a) => (b) { b = Add(a, a) }
    """)
    model = load.load(put(proto, tmp_path))
    assert [n.op_type for n in model.graph] == ["Add"]
    assert not model.functions


INTEGER = """
<ir_version: 10, opset_import: ["": {opset}, "onnx_fhe": 1]>
g (float[N,2] x) => (float[N,2] y)
<float[1,4] table = {{0, 1, 1, 0}}, float[1] first = {{0}}> {{
    e = onnx_fhe.Encrypt<low = 0, high = 3>(x)
    t = onnx_fhe.TableLookup<step = 1, axis = 1>(e, table, first)
    y = onnx_fhe.Decrypt<low = 0, high = 1>(t)
}}
"""


@pytest.mark.parametrize("opset", [18, target_opset()])
def test_the_integer_level_comes_back_from_a_file(opset, tmp_path):
    model = ir.from_proto(parser.parse_model(INTEGER.format(opset=opset)))
    model.metadata_props["onnx_fhe.level"] = "integer"
    next(iter(model.graph)).metadata_props["kept"] = "yes"
    next(iter(model.graph)).outputs[0].metadata_props["kept"] = "too"
    model.opset_imports[""] = target_opset()
    save(model, tmp_path / "i.onnx")
    if opset != target_opset():
        proto = onnx.load(tmp_path / "i.onnx")
        proto.opset_import[0].version = opset
        for function in proto.functions:
            function.opset_import[0].version = opset
        onnx.save(proto, tmp_path / "i.onnx")
    back = load.load(tmp_path / "i.onnx")
    assert level_of(back) is Level.INTEGER
    assert not back.functions
    assert [n.op_type for n in back.graph] == ["Encrypt", "TableLookup", "Decrypt"]
    encrypt = back.graph[0]
    assert encrypt.metadata_props["kept"] == "yes"
    assert encrypt.outputs[0].metadata_props["kept"] == "too"
    np.testing.assert_array_equal(run(back, {"x": np.float32([[2, 3]])})["y"], [[1, 0]])


def test_a_missing_file_and_a_folder(tmp_path):
    assert "no such" in refused(tmp_path / "none.onnx").what
    assert "folder" in refused(tmp_path).what


@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(1000)])
def test_files_that_are_no_onnx(content, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert "ONNX" in refused(path).what


def test_a_damaged_file(tmp_path):
    path = put(dense(), tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    assert "damaged" in refused(path).what


def test_what_the_checker_refuses(tmp_path):
    proto = dense()
    proto.graph.node[0].input[0] = "nobody"
    error = refused(put(proto, tmp_path))
    assert "not valid ONNX" in error.what
    assert "nobody" in error.found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(value, tmp_path):
    proto = dense()
    array = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    array[1, 1] = value
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))
    error = refused(put(proto, tmp_path))
    assert "'w'" in error.found
    assert "of 6 values" in error.found


def test_nan_in_a_constant_node_is_named(tmp_path):
    proto = dense()
    proto.graph.node[2].attribute[0].CopyFrom(
        helper.make_attribute("value", numpy_helper.from_array(np.float32([0.5, np.nan])))
    )
    assert "'c'" in refused(put(proto, tmp_path)).found


def test_nan_in_a_list_of_floats_is_named(tmp_path):
    proto = dense()
    proto.graph.node[2].attribute[0].floats[1] = np.nan
    assert "'c'" in refused(put(proto, tmp_path)).found


def test_an_infinite_bound_of_a_clip_is_no_weight(tmp_path):
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N,3] x) => (float[N,3] y) <float low = {0}, float high = {1}> { y = Clip(x, low, high) }
    """)
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.float32(np.inf), "high"))
    assert len(load.load(put(proto, tmp_path)).graph) == 1


@pytest.mark.parametrize("domain", ["", "com.microsoft", "onnx.brevitas"])
def test_operators_that_nothing_defines_are_named(domain, tmp_path):
    proto = dense()
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Frobnicate", domain
    proto.graph.node[1].name = "/layer/odd"
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    error = refused(put(proto, tmp_path))
    assert (error.where.node, error.where.op) == ("/layer/odd", "Frobnicate")


def test_an_undefined_operator_in_a_branch_is_found(tmp_path):
    branch = helper.make_graph(
        [helper.make_node("Nope", ["x"], ["b"], domain="odd")],
        "b",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    proto = dense()
    condition = numpy_helper.from_array(np.array(True), "c0")
    proto.graph.initializer.append(condition)
    proto.graph.node.append(helper.make_node("If", ["c0"], ["z"], then_branch=branch, else_branch=branch))
    proto.opset_import.append(helper.make_opsetid("odd", 1))
    assert refused(put(proto, tmp_path)).where.op == "Nope"


def test_training_information_and_sparse_tensors(tmp_path):
    proto = dense()
    proto.training_info.add()
    assert "training" in refused(put(proto, tmp_path)).what
    proto = dense()
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([1]), "s"), numpy_helper.from_array(np.int64([0])), [3]
    )
    proto.graph.sparse_initializer.append(sparse)
    error = refused(put(proto, tmp_path))
    assert "sparse" in error.what
    assert "'s'" in error.found


def external(folder, location: str, size: int | None = None) -> onnx.ModelProto:
    proto = dense()
    tensor = proto.graph.initializer[0]
    raw = numpy_helper.to_array(tensor).tobytes()
    del tensor.float_data[:]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(raw)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if size is not None:
        (folder / "w.bin").write_bytes(raw[:size])
    return proto


def test_external_data_beside_the_model_is_read(tmp_path):
    model = load.load(put(external(tmp_path, "w.bin", 24), tmp_path))
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy().ravel(), range(1, 7))


def test_external_data_that_is_missing_short_or_elsewhere(tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    assert "missing" in refused(put(external(folder, "w.bin"), folder)).what
    assert "short" in refused(put(external(folder, "w.bin", 20), folder)).what
    (tmp_path / "secret").write_bytes(bytes(24))
    (folder / "link").symlink_to(tmp_path / "secret")
    assert "link" in refused(put(external(folder, "link"), folder)).what
    for location in ("../secret", str(tmp_path / "secret"), "..\\secret", ""):
        assert "outside" in refused(put(external(folder, location), folder)).what, location


def test_the_size_limit(tmp_path):
    path = put(dense(), tmp_path)
    assert "too large" in refused(path, FileLimits(bytes=100)).what


def test_an_opset_from_the_future(tmp_path):
    proto = dense(target_opset())
    proto.opset_import[0].version = 999
    error = refused(put(proto, tmp_path))
    assert "999" in str(error)


def test_outputs_that_change_in_the_conversion_are_caught(tmp_path, monkeypatch):
    def relabel(proto, version):
        # What a careless converter does: Softmax of opset 11 flattens, that of 13 does not.
        result = onnx.ModelProto()
        result.CopyFrom(proto)
        result.opset_import[0].version = version
        return result

    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 11]>
        g (float[N,3,4] x) => (float[N,3,4] y) { y = Softmax<axis = 1>(x) }
    """)
    path = put(proto, tmp_path)
    good = load.load(path)
    x = {"x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)}
    np.testing.assert_allclose(run(good, x)["y"], run(proto, x)["y"], rtol=1e-6)
    monkeypatch.setattr(convert.version_converter, "convert_version", relabel)
    error = refused(path)
    assert f"from opset 11 to {target_opset()}" in error.what
    assert "'y'" in error.found


def test_a_random_model_is_refused(tmp_path):
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 15]>
        g (float[N,3] x) => (float[N,3] y) { r = RandomNormalLike(x)  y = Add(x, r) }
    """)
    error = refused(put(proto, tmp_path))
    assert "random" in error.what
    assert (error.where.node, error.where.op) == ("r", "RandomNormalLike")


def test_a_dropout_in_training_mode_is_refused(tmp_path):
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 15]>
        g (float[N,300] x) => (float[N,300] y) <float ratio = {0.5}, bool mode = {1}> {
            y = Dropout(x, ratio, mode)
        }
    """)
    assert "each time" in refused(put(proto, tmp_path)).what


def test_names_cannot_send_escapes_to_a_terminal(tmp_path):
    proto = dense()
    proto.graph.node[1].op_type, proto.graph.node[1].name = "Odd", "\x1b[2Jgone"
    assert "\x1b" not in str(refused(put(proto, tmp_path)))
