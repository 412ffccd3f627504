"""Saving: what opens afterwards, and outputs that cannot be written; annotations survive."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from onnx_fhe.ir import annotations as notes
from onnx_fhe.ir.errors import OutputError, VerificationError
from onnx_fhe.ir.level import Level, level_of
from onnx_fhe.ir.load import load
from onnx_fhe.ir.opsets import target_ir_version, target_opset
from onnx_fhe.ir.paths import atomic_path, write_bytes
from onnx_fhe.ir.runtime import Session
from onnx_fhe.ir.save import save, serialize

FLOAT = "g (float[N,2] x) => (float[N,2] y) { h = Relu(x)  y = Sqrt(h) }"
QDQ = """g (float[N,2] x) => (float[N,2] y)
<float s = {0.5}, uint8 z = {0}, int8[2,2] w = {1, -2, 3, 4}, int8 wz = {0}, uint8 lo = {0}, uint8 hi = {7}> {
    q = QuantizeLinear(x, s, z)
    c = Clip(q, lo, hi)
    d = DequantizeLinear(c, s, z)
    v = DequantizeLinear(w, s, wz)
    y = MatMul(d, v)
}"""
INTEGER = """g (float[N,2] x) => (float[N,2] y)
<float[1,4] table = {0, 1, 1, 0}, float[1] first = {0}> {
    e = onnx_fhe.Encrypt<low = 0, high = 6>(x)
    r = onnx_fhe.RoundBits<lsbs_to_remove = 1, mode = "exact">(e)
    t = onnx_fhe.TableLookup<step = 2, axis = 1>(r, table, first)
    y = onnx_fhe.Decrypt<low = 0, high = 1>(t)
}"""


def model_of(graph: str) -> ir.Model:
    head = f'<ir_version: {target_ir_version()}, opset_import: ["": {target_opset()}, "onnx_fhe": 1]>\n'
    model = ir.from_proto(parser.parse_model(head + graph))
    if "onnx_fhe" not in graph:
        del model.opset_imports["onnx_fhe"]
    return model


@pytest.mark.parametrize(
    ("graph", "level"), [(FLOAT, Level.FLOAT), (QDQ, Level.QDQ), (INTEGER, Level.INTEGER)]
)
def test_every_level_opens_everywhere_and_comes_back(graph, level, tmp_path):
    model = model_of(graph)
    path = tmp_path / "m.onnx"
    save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    x = {"x": np.float32([[1, 4], [2, 6]])}
    expected = Session(onnx.load(path)).run(x)["y"]
    back = load(path)
    assert level_of(back) is level
    np.testing.assert_array_equal(Session(back).run(x)["y"], expected)
    assert not model.functions  # the bodies are in the file only


def test_the_file_has_the_shapes_of_values_and_their_annotations(tmp_path):
    model = model_of(FLOAT)
    relu = model.graph[0].outputs[0]
    relu.shape, relu.dtype = ir.Shape(["N", 2]), ir.DataType.FLOAT
    notes.put(relu, low=-1, high=2.5, bits=3, pbs=np.int64(4))
    save(model, tmp_path / "m.onnx")
    info = onnx.load(tmp_path / "m.onnx").graph.value_info[0]
    assert [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim] == ["N", 2]
    value = load(tmp_path / "m.onnx").graph[0].outputs[0]
    assert notes.get(value) == notes.Annotation(low=-1, high=2.5, bits=3, table_bits=None, pbs=4)
    assert notes.get_range(value) == (-1, 2.5)


def test_annotations_that_are_no_numbers_count_as_unknown_and_clear_is_truthful():
    model = model_of(FLOAT)
    value = model.graph[0].outputs[0]
    assert not notes.clear(model)
    value.metadata_props["onnx_fhe.bits"] = "many"
    value.metadata_props["mine"] = "stays"
    assert notes.get(value).bits is None
    assert notes.get_range(value) is None
    assert notes.clear(model)
    assert dict(value.metadata_props) == {"mine": "stays"}


def test_the_same_model_gives_the_same_bytes():
    assert serialize(model_of(INTEGER)) == serialize(model_of(INTEGER))


def test_a_model_that_is_no_onnx_is_a_defect(tmp_path):
    model = model_of(FLOAT)
    model.graph[0].op_type = "Unheard"
    with pytest.raises(VerificationError, match="not valid ONNX"):
        save(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "reason"), [("none/m.onnx", "no folder"), ("", "a folder"), ("file/m.onnx", "no folder")]
)
def test_outputs_that_cannot_be_written(name, reason, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError) as caught:
        save(model_of(FLOAT), tmp_path / name)
    assert reason in caught.value.found
    assert str(tmp_path / name) in str(caught.value)


def test_devices_are_not_replaced():
    with pytest.raises(OutputError, match="regular file"):
        write_bytes("/dev/null", b"x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="ermission"):
        write_bytes(tmp_path / "closed" / "m.onnx", b"x")


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half" * (1 // 0))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_the_output_s_fault(tmp_path):
    with pytest.raises(OutputError, match="No space left"), atomic_path(tmp_path / "m"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_links_are_followed_and_modes_are_those_of_any_file(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()
    umask = os.umask(0o027)
    try:
        write_bytes(tmp_path / "shared", b"")
        with atomic_path(tmp_path / "secret", private=True) as temporary:
            temporary.write_bytes(b"key")
    finally:
        os.umask(umask)
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
