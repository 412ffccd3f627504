"""Files as tools write them: each loads, keeps its float outputs, and compiles; or says what keeps it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

import onnx_fhe
from onnx_fhe import cli
from onnx_fhe.ir.bind import parse_bindings
from onnx_fhe.ir.errors import ModelError, UnsupportedError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.normalize.normalize import Normalize

FILES = sorted((Path(__file__).parents[1] / "models" / "exporters").glob("*.onnx"))
REFUSED = {"sklearn_tree": "branches", "sklearn_svc": "kernel"}
# What the tools themselves make of their models: inputs for each network, outputs for each network or file.
OWN = {
    tool: dict(np.load(FILES[0].parent / f"{file}.npz"))
    for file, tools in (
        ("keras", ["keras", "tf2onnx"]),
        ("torch", ["torchscript", "dynamo"]),
        ("sklearn", ["sklearn"]),
    )
    for tool in tools
}
PIPELINE = "quantize{weights=7 activations=6 inputs=7},lower-to-integer,fuse-tlu"


def original(path: Path, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What onnxruntime makes of the file itself, sample by sample; dictionaries of scores as rows."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    fixed = isinstance(session.get_inputs()[0].shape[0], int)
    step = session.get_inputs()[0].shape[0] if fixed else len(next(iter(data.values())))
    count = len(next(iter(data.values()))) // step
    parts = [
        session.run(names, {k: v[i * step : (i + 1) * step] for k, v in data.items()}) for i in range(count)
    ]
    found = {}
    for number, name in enumerate(names):
        rows = [p[number] for p in parts]
        if isinstance(rows[0], list):
            rows = [np.array([[*row.values()] for row in r], np.float32) for r in rows]
        found[name] = np.concatenate(rows)
    return found


def own(path: Path, kind: str) -> np.ndarray | None:
    """The inputs (``x``) that the tool was given, or its first (``y``) or second output (``scores``)."""
    names = [path.stem, *path.stem.split("_")]
    arrays = OWN.get(names[1], {})
    return next((arrays[f"{n}.{kind}"] for n in names if f"{n}.{kind}" in arrays), None)


def samples(path: Path, count: int = 32) -> dict[str, np.ndarray]:
    """The inputs that the tool was given, or random ones of the shape that the model takes."""
    if (given := own(path, "x")) is not None:
        return {str(load(path).graph.inputs[0].name): given}
    random = np.random.default_rng(0)
    found = {}
    for value in load(path).graph.inputs:
        shape = [count, *[int(d) for d in list(value.shape)[1:]]]
        found[str(value.name)] = random.normal(1, 1, shape).astype(np.float32)
    return found


def agrees(found: np.ndarray, expected: np.ndarray, tolerance: float, equal: float) -> None:
    if expected.dtype.kind == "f":
        assert np.abs(found - expected).mean() <= tolerance * np.abs(expected).mean()
    else:
        assert (found == expected).mean() >= equal


@pytest.mark.parametrize("path", [f for f in FILES if f.stem not in REFUSED], ids=lambda f: f.stem)
def test_models_of_exporters_keep_their_outputs_and_compile(path):
    data = samples(path)
    expected = original(path, data)
    for name, kind in zip(expected, ("y", "scores"), strict=False):
        if (theirs := own(path, kind)) is not None:
            agrees(expected[name], theirs.reshape(expected[name].shape), 1e-5, 1.0)
            expected[name] = theirs.reshape(expected[name].shape)
    model = load(path)
    Normalize()(model)
    for name, array in run(model, data).items():
        agrees(array, expected[name], 1e-5, 1.0)
    assert all(str(i.shape[0]) == "N" for i in model.graph.inputs)
    program = onnx_fhe.compile(path, data, PIPELINE, "reference", check_samples=4)
    result = program.run(data, mode="clear")
    for name, array in result.outputs.items():
        agrees(array, expected[name], 0.06, 0.9)  # two of the three irises lie close to each other


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_are_not_linear_are_refused_with_the_reason(name):
    with pytest.raises(UnsupportedError) as caught:
        load(next(f for f in FILES if f.stem == name))
    assert REFUSED[name] in caught.value.found
    assert caught.value.where.op


@pytest.mark.parametrize("name", ["sklearn_mlp_names", "tf2onnx_mlp"])
def test_on_concrete(name, tmp_path):
    path = next(f for f in FILES if f.stem == name)
    data = samples(path)
    narrow = "quantize{weights=3 activations=2 inputs=3},lower-to-integer,fuse-tlu"
    program = onnx_fhe.compile(path, data, narrow, check_samples=4)
    program.save(tmp_path / "m.fhe")
    again = onnx_fhe.Program.load(tmp_path / "m.fhe")
    few = {k: v[:4] for k, v in data.items()}
    for key, array in again.run(few, mode="clear").outputs.items():
        np.testing.assert_array_equal(array, program.run(few, mode="clear").outputs[key])


@pytest.mark.parametrize("name", ["tf2onnx_cnn", "keras_torch_cnn"])
def test_keras_models_simulated_on_concrete(name):
    path = next(f for f in FILES if f.stem == name)
    data = samples(path)
    text = "quantize{weights=4 activations=4 inputs=4},lower-to-integer,fuse-tlu"
    program = onnx_fhe.compile(path, data, text, check_samples=4)
    few = {k: v[:8] for k, v in data.items()}
    (found,) = program.run(few, mode="simulate").outputs.values()
    assert np.abs(found - OWN["keras"][f"{name}.y"][:8]).mean() < 0.05


def test_every_file_names_its_maker():
    makers = {
        "torchscript": "torch",
        "dynamo": "torch",
        "keras": "keras",
        "tf2onnx": "tf2onnx",
        "cntk": "by hand",
    }
    makers |= {"sklearn": "skl2onnx", "brevitas": "brevitas", "onnxruntime": "onnxruntime", "torch": "torch"}
    paths = [*FILES, *(FILES[0].parents[1] / "qat").glob("*.onnx")]
    assert len(paths) > 50
    for path in paths:
        made = {p.key: p.value for p in onnx.load(path).metadata_props}["made"]
        assert re.search(rf"\b{makers[path.stem.split('_')[0]]}( \d|$)", made), (path.name, made)
        assert path.stat().st_size < 12288


CONV = """
<ir_version: 8, opset_import: ["": 17]>
g (float[{batch}, 1, {height}, {width}] image) => (float[{batch}, 3] y) <int64[2] s = {{{first}, -1}}> {{
    h = Conv<pads = [1, 1, 1, 1]>(image, k)
    r = Relu(h)
    f = Reshape(r, s)
    y = MatMul(f, w)
}}
"""


def image_model(folder: Path, batch="N", height="height", width="width", first=0) -> Path:
    proto = parser.parse_model(CONV.format(batch=batch, height=height, width=width, first=first))
    random = np.random.default_rng(0)
    for name, shape in (("k", (2, 1, 3, 3)), ("w", (40, 3))):
        proto.graph.initializer.append(
            numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        )
    path = folder / "m.onnx"
    onnx.save(proto, path)
    return path


def test_sizes_are_bound_by_name_or_by_place(tmp_path):
    path = image_model(tmp_path)
    for sizes in ({"height": 4, "width": 5}, {"image.2": 4, "width": 5}, {"image.2": 4, "image.3": 5}):
        model = load(path, bind=sizes)
        assert list(model.graph.inputs[0].shape)[1:] == [1, 4, 5]
    with pytest.raises(ModelError) as caught:
        load(path, bind={"heigth": 4})
    assert "height, width" in caught.value.allowed


def test_one_name_is_one_size(tmp_path):
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, steps] a, float[N, steps] b) => (float[N, steps] y) { y = Add(a, b) }
    """)
    onnx.save(proto, tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx", bind={"a.1": 5})
    assert [list(i.shape)[1] for i in model.graph.inputs] == [5, 5]


@pytest.mark.parametrize(
    "text", ["height", "height=", "=3", "height=0", "height=-2", "height=x", "height=1.5"]
)
def test_bindings_that_do_not_parse(text):
    with pytest.raises(ModelError, match="does not parse"):
        parse_bindings([text])


def test_sizes_come_from_the_calibration_data(tmp_path):
    path = image_model(tmp_path)
    images = np.random.default_rng(0).normal(size=(20, 1, 4, 5)).astype(np.float32)
    for given in (images, {"image": images}):
        program = onnx_fhe.compile(path, given, PIPELINE, "reference")
        assert program.run(images, mode="clear").outputs["y"].shape == (20, 3)
    assert list(load(path, shapes={"image": images.shape}).graph.inputs[0].shape)[1:] == [1, 4, 5]


def test_sizes_come_from_the_context_of_a_model_in_memory(tmp_path):
    model = load(image_model(tmp_path, width=5), bind={"height": 4})
    model.graph.inputs[0].shape = type(model.graph.inputs[0].shape)(["N", 1, 4, "width"])
    images = np.zeros((3, 1, 4, 5), np.float32)
    Normalize().with_context(Context(calibration={"image": images}))(model)
    assert list(model.graph.inputs[0].shape)[1:] == [1, 4, 5]


def test_a_free_axis_that_nothing_binds_is_refused(tmp_path):
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, steps] a) => (float[N, steps] y) { y = Relu(a) }
    """)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError) as caught:
        Normalize()(load(tmp_path / "m.onnx"))
    assert "(N, steps)" in caught.value.found
    assert "--bind" in caught.value.do


def test_bind_on_the_command_line(tmp_path, capsys):
    command = ["inspect", str(image_model(tmp_path)), "--json"]
    with pytest.raises(SystemExit) as done:
        cli.main([*command, "--bind", "height=4", "--bind", "width=5"])
    assert done.value.code == 0
    assert json.loads(capsys.readouterr().out)["supported"] is True
    with pytest.raises(SystemExit) as refused:
        cli.main([*command, "--bind", "depth=4"])
    assert refused.value.code == 1
    assert "height, width" in capsys.readouterr().err


@pytest.mark.parametrize(("batch", "first"), [(1, 1), (1, 0), (6, 6), (6, 0), (6, -1)])
def test_a_fixed_batch_becomes_free(batch, first, tmp_path):
    target = "-1" if first != -1 else "40"
    path = image_model(tmp_path, batch, 4, 5, first)
    if first == -1:
        proto = onnx.load(path)
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.int64([-1, 40]), "s"))
        onnx.save(proto, path)
        assert target == "40"
    data = {"image": np.random.default_rng(0).normal(size=(2 * batch, 1, 4, 5)).astype(np.float32)}
    model = load(path)
    Normalize()(model)
    assert str(model.graph.inputs[0].shape[0]) == "N"
    np.testing.assert_allclose(run(model, data)["y"], original(path, data)["y"], rtol=1e-5, atol=1e-5)


def test_a_fixed_batch_whose_samples_depend_on_each_other_is_refused(tmp_path):
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[4, 3] x) => (float[4, 3] y) { m = ReduceMean<axes = [0]>(x) y = Sub(x, m) }
    """)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="depend on each other") as caught:
        Normalize()(load(tmp_path / "m.onnx"))
    assert "batch of 4" in caught.value.found


def test_names_of_classes_can_be_written(tmp_path):
    path = next(f for f in FILES if f.stem == "sklearn_mlp_names")
    names = run(load(path), samples(path))["output_label"]
    np.savez(tmp_path / "names.npz", names=names)
    assert set(np.load(tmp_path / "names.npz")["names"]) <= {"setosa", "versicolor", "virginica"}


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMean"])
def test_no_circuit_is_made_of_a_model_that_mixes_its_samples(op, tmp_path):
    proto = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {{1, 2, 3, 4}}> {{
            h = MatMul(x, w)  m = {op}<axes = [0]>(h)  r = Sub(h, m)  y = MatMul(r, w)
        }}
    """)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="depend on each other") as caught:
        onnx_fhe.compile(tmp_path / "m.onnx", np.ones((8, 2), np.float32), backend="reference")
    assert caught.value.where.op == op


def test_imports_that_are_missing_or_stand_twice(tmp_path):
    path = next(f for f in FILES if f.stem == "sklearn_logistic")
    proto = onnx.load(path)
    kept = [o for o in proto.opset_import if o.domain != "ai.onnx.ml"]
    del proto.opset_import[:]
    proto.opset_import.extend([*kept, *kept])
    onnx.save(proto, tmp_path / "m.onnx")
    data = samples(path)
    np.testing.assert_array_equal(
        run(load(tmp_path / "m.onnx"), data)["output_label"], original(path, data)["output_label"]
    )


def test_a_resize_without_its_roi(tmp_path):
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest")
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 1, 3, 3])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 1, 6, 6])
    scale = numpy_helper.from_array(np.float32([1, 1, 2, 2]), "s")
    graph = helper.make_graph([node], "g", [x], [y], [scale])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    data = {"x": np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)}
    np.testing.assert_array_equal(run(load(tmp_path / "m.onnx"), data)["y"][0, 0, ::2, ::2], data["x"][0, 0])
