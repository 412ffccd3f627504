"""Students of files that cannot be lowered: trees, kernel machines, recurrent cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import onnx_fhe
from onnx_fhe.ir.errors import UnsupportedError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.client.forms import forms_of
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.testing.builder import Builder

EXPORTED = Path(__file__).parents[2] / "models" / "exporters"
PIPELINE = "imitate{features=256},normalize,quantize{weights=8 activations=8},lower-to-integer,fuse-tlu"


def recurrent() -> onnx.ModelProto:
    """An LSTM over five steps, and a dense layer."""
    b = Builder(17, seed=3)
    first = b.node("Transpose", "input", perm=[1, 0, 2])
    names = [b.normal(1, 16, 3, scale=0.5), b.normal(1, 16, 4, scale=0.5)]
    _, state = b.split("LSTM", first, *names, outputs=2, hidden_size=4)
    flat = b.node("Squeeze", state, b.constant([0], np.int64))
    return b.model(b.dense(flat, 4, 3), [5, 3], [3])


def inputs_of(model, count: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        str(v.name): random.normal(size=(count, *[int(d) for d in v.shape[1:]])).astype(np.float32)
        for v in model.graph.inputs
    }


def flowers(model, count: int, seed: int) -> dict[str, np.ndarray]:
    """Inputs like those that the files of scikit-learn were trained on."""
    random, given = np.random.default_rng(seed), np.load(EXPORTED / "sklearn.npz")["sklearn.x"]
    rows = given[random.integers(len(given), size=count)]
    noisy = rows + random.normal(size=rows.shape) * 0.2 * given.std(axis=0)
    return {str(model.graph.inputs[0].name): noisy.astype(np.float32)}


@pytest.mark.parametrize("name", ["sklearn_tree", "sklearn_svc"])
def test_classes_are_those_of_the_file(name: str):
    model = load(EXPORTED / f"{name}.onnx", any_model=True)
    data, new = flowers(model, 400, 0), flowers(model, 200, 1)
    result = PassManager.parse(PIPELINE).run(model, Context(calibration=data))
    wanted, found = run(model, new), run(result.model, new)
    assert list(found) == list(wanted)
    for output, array in wanted.items():
        assert found[output].dtype == array.dtype
        assert found[output].shape == array.shape
        if array.ndim == 1:
            assert np.mean(found[output] == array) > 0.93
    assert result.context.notes[0].startswith("imitate: the client")
    assert "without a bootstrap" in result.context.notes[0]


def test_a_recurrent_cell_is_imitated(tmp_path):
    path = tmp_path / "lstm.onnx"
    onnx.save(recurrent(), path)
    model = load(path)
    data, new = inputs_of(model, 400, 0), inputs_of(model, 100, 1)
    with pytest.raises(UnsupportedError, match="recurrent") as refused:
        onnx_fhe.compile(path, data, backend="reference")
    assert "--imitate" in refused.value.do
    program = onnx_fhe.compile(path, data, PIPELINE, backend="reference", check_samples=0)
    wanted, found = next(iter(run(model, new).values())), next(iter(program.run(new).outputs.values()))
    # Its inputs are noise, fifteen independent numbers each: harder than what networks are trained on.
    assert 1 - np.mean((found - wanted) ** 2) / wanted.var() > 0.7
    assert "drawn by chance" in program.manifest.client


@pytest.mark.parametrize("kind", ["int64", "uint8", "bool", "float64"])
def test_inputs_of_any_type_are_features(kind: str):
    low, high, element = {
        "int64": (0, 7, TensorProto.INT64),
        "uint8": (0, 200, TensorProto.UINT8),
        "bool": (0, 2, TensorProto.BOOL),
        "float64": (-3, 3, TensorProto.DOUBLE),
    }[kind]
    random = np.random.default_rng(0)
    drawn = random.normal(size=(300, 4)) if low < 0 else random.integers(low, high, (300, 4))
    b = Builder(17, seed=5)
    hidden = b.node("Relu", b.dense(b.node("Cast", "input", to=TensorProto.FLOAT), 4, 6))
    proto = b.model(b.dense(hidden, 6, 2), [4], [2])
    proto.graph.input[0].type.tensor_type.elem_type = element
    data, model = {"input": drawn.astype(kind)}, ir.from_proto(proto)
    integer = PassManager.parse(PIPELINE).run(model, Context(calibration=data)).model
    (wanted,), (found,) = (list(run(m, data).values()) for m in (model, integer))
    assert 1 - np.mean((found - wanted) ** 2) / wanted.var() > 0.75


def test_outputs_keep_their_type():
    b = Builder(17, seed=5)
    proto = b.model(b.node("Cast", b.dense("input", 4, 2), to=TensorProto.DOUBLE), [4], [2])
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model = ir.from_proto(proto)
    data = inputs_of(model, 100, 0)
    integer = PassManager.parse(PIPELINE).run(model, Context(calibration=data)).model
    (found,) = run(integer, data).values()
    assert found.dtype == np.float64


def test_inputs_that_no_family_takes_are_refused():
    b = Builder(17, seed=5)
    model = ir.from_proto(b.model(b.dense("input", 9000, 2), [9000], [2]))
    with pytest.raises(UnsupportedError, match="no features are known") as refused:
        PassManager.parse("imitate").run(model, Context(calibration=inputs_of(model, 50, 0)))
    assert "9000 numbers" in refused.value.found


def test_outputs_are_known_by_their_values():
    def value(name: str, kind: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, None)

    outputs = [
        ir.serde.deserialize_value_info_proto(value(n, k), None)
        for n, k in (("label", TensorProto.STRING), ("p", TensorProto.FLOAT), ("y", TensorProto.FLOAT))
    ]
    p = np.asarray([[0.2, 0.8], [0.9, 0.1], [0.3, 0.7]], np.float32)
    answers = {"label": np.asarray(["b", "a", "b"], object), "p": p, "y": p * 3}
    forms = forms_of(outputs, answers)
    assert [f.kind for f in forms.outputs] == ["labels", "probabilities", "values"]
    assert list(forms.outputs[0].classes) == ["a", "b"]
    assert forms.outputs[0].source == 0
    assert forms.shapes == [(2,), (2,)]
    assert forms.scores(answers).shape == (3, 4)
