"""distill: the student imitates the imported model, and comes back as the same kind of graph."""

from __future__ import annotations

import builtins
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnx_fhe.analysis.noise.noise import noise_steps
from onnx_fhe.ir import runtime
from onnx_fhe.ir.errors import DataError, UnsupportedError
from onnx_fhe.ir.load import load
from onnx_fhe.passes import Calibration, Context
from onnx_fhe.passes.distill.distill import Distill
from onnx_fhe.passes.framework.manager import PassManager

torch = pytest.importorskip("torch")

QUANTIZE = "normalize,quantize{weights=2 activations=3 inputs=6}"
TABLES = "lower-to-integer,fuse-tlu,insert-rounding{bits=3}"


def network(tmp_path, *, activation: str = "Relu", softmax: bool = False, seed: int = 0) -> ir.Model:
    """Two dense layers, 6-12-3."""
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.normal(size=(12, 6)),
        "b1": random.normal(size=12),
        "w2": random.normal(size=(3, 12)) * 2,
        "b2": random.normal(size=3),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "fc1", transB=1),
        helper.make_node(activation, ["h"], ["a"], "act"),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["z" if softmax else "y"], "fc2", transB=1),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["y"], "softmax", axis=1))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["N", 6])],
        [helper.make_tensor_value_info("y", 1, ["N", 3])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    path = tmp_path / f"net{activation}{softmax}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load(path)


def inputs(count: int = 300, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 6)).astype(np.float32)


def run(model, text, context=None):
    return PassManager.parse(text).run(model, context or Context(calibration={"x": inputs()}))


def error(model, teacher, data) -> float:
    """Mean squared error over the variance."""
    a, b = (next(iter(runtime.run(m, {"x": data}).values())) for m in (model, teacher))
    return float(((a - b) ** 2).mean() / b.var())


def test_the_student_agrees_at_least_as_well_as_before(tmp_path):
    """On the samples that were held back, the state before training is a candidate, too."""
    result = run(network(tmp_path), QUANTIZE + ",distill{rounding=0 steps=1 learning-rate=5}")
    before = run(network(tmp_path), QUANTIZE).model
    data = inputs(300, seed=7)
    assert error(result.model, before, data) < 1e-6


def test_with_its_rounding_trained_in_the_network_bears_it_better(tmp_path):
    teacher, data = network(tmp_path), inputs(500, seed=7)
    plain = run(teacher, f"{QUANTIZE},{TABLES}").model
    trained = run(teacher, f"{QUANTIZE},distill{{rounding=3 steps=600 loss=values}},{TABLES}").model
    assert error(trained, teacher, data) < error(plain, teacher, data)


def test_insert_rounding_finds_the_cells_that_were_trained(tmp_path):
    result = run(network(tmp_path), QUANTIZE + ",distill{rounding=3 steps=200}")
    integer = PassManager.parse(TABLES).run(result.model, result.context).model
    data = inputs(400, seed=9)
    qdq, rounded = (next(iter(runtime.run(m, {"x": data}).values())) for m in (result.model, integer))
    # Near the edges of cells values may fall to the other side.
    assert np.isclose(qdq, rounded, atol=1e-3).mean() > 0.75


def test_the_graph_keeps_its_form(tmp_path):
    teacher = network(tmp_path)
    plain, trained = (run(teacher, QUANTIZE + t).model for t in ("", ",distill{rounding=0 steps=5}"))
    assert [n.op_type for n in plain.graph] == [n.op_type for n in trained.graph]
    assert [n.name for n in plain.graph] == [n.name for n in trained.graph]


@pytest.mark.parametrize(
    "activation", ["Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Softplus"]
)
def test_before_training_the_student_computes_what_onnxruntime_does(tmp_path, activation):
    from onnx_fhe.passes.distill.training.student import Student

    model = run(network(tmp_path, activation=activation), QUANTIZE).model
    student = Student(model, lambda _: 0, noise_steps(1e-5), [])
    data = inputs(100, seed=3)
    with torch.no_grad():
        found = student([torch.from_numpy(data)])[0].numpy()
    wanted = next(iter(runtime.run(model, {"x": data}).values()))
    assert np.isclose(found, wanted, atol=1e-4).mean() > 0.97  # ties may be rounded the other way


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("Greater", [np.float32(0.2)], {}),
        ("GreaterOrEqual", [np.float32(0.2)], {}),
        ("Less", [np.float32(0.2)], {}),
        ("LessOrEqual", [np.float32(0.2)], {}),
        ("Cast", [], {"to": int(ir.DataType.INT64)}),
        ("Cast", [], {"to": int(ir.DataType.BOOL)}),
        ("Slice", [np.array([-1]), np.array([-9]), np.array([1]), np.array([-2])], {}),
        ("Slice", [np.array([1]), np.array([4]), np.array([1]), np.array([2])], {}),
    ],
)
def test_an_operator_computes_what_onnxruntime_does_and_passes_gradients(op, constants, attributes):
    from onnx_fhe.passes.distill.training.operators import OPERATORS

    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([5, 6]))
    given = [ir.Value(name=f"c{i}", const_value=ir.tensor(c)) for i, c in enumerate(constants)]
    node = ir.node(op, [x, *given], attributes)
    data = np.random.default_rng(0).normal(0, 2, (5, 6)).astype(np.float32)
    (wanted,) = runtime.run_nodes([node], {x: data}, node.outputs, opset=21)
    tensor = torch.from_numpy(data).requires_grad_()
    found = OPERATORS[op](node, [tensor, *(torch.from_numpy(np.asarray(c)) for c in constants)])
    assert np.array_equal(found.detach().numpy(), wanted.astype(np.float32))
    found.sum().backward()
    assert tensor.grad.abs().sum() > 0


def test_a_seed_gives_the_same_network_and_another_seed_another(tmp_path):
    teacher, data = network(tmp_path), inputs(50, seed=5)

    def outputs(seed: int) -> np.ndarray:
        context = Context(calibration={"x": inputs()}, seed=seed)
        model = run(teacher, QUANTIZE + ",distill{rounding=3 steps=40}", context).model
        return next(iter(runtime.run(model, {"x": data}).values()))

    first = outputs(3)
    assert np.array_equal(first, outputs(3))
    assert not np.array_equal(first, outputs(4))


def test_scores_before_a_softmax_are_imitated(tmp_path):
    from onnx_fhe.analysis.outputs.classes import kind_of, scores

    model = network(tmp_path, softmax=True)
    cut = scores(model)
    assert [v.name for v in cut] == ["z"]
    assert kind_of([np.zeros((4, 3), np.float32)], cut, list(model.graph.outputs)) == "classes"
    unsure = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    assert kind_of([unsure], list(model.graph.outputs), list(model.graph.outputs)) == "values"
    # All of one class: a circuit that knew that class alone would be right as often.
    one = np.tile(np.float32([0, 9, 0]), (50, 1))
    assert kind_of([one], cut, list(model.graph.outputs)) == "values"
    assert (
        kind_of([np.vstack([one, one[:, ::-1] + [5, 0, 0], one[:10] * [0, 0, 1]])], cut, [cut[0]])
        == "classes"
    )


def test_only_calibration_data_is_read(tmp_path, monkeypatch):
    """Validation and test files lie beside the calibration file: the pass opens no file at all."""
    result = run(network(tmp_path), QUANTIZE)
    from onnx_fhe.passes.distill.training import distillation_run as job  # noqa: F401 - importing opens files

    opened: list[str] = []
    real = builtins.open

    def spy(file, *args, **kwargs):
        opened.append(str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", spy)
    monkeypatch.setattr(np, "load", lambda *a, **k: pytest.fail("a data file was read"))
    PassManager([Distill(rounding=3, steps=5)]).run(result.model, result.context)
    assert not [f for f in opened if f.endswith((".npz", ".npy", ".onnx"))]


@pytest.mark.parametrize("wrong", [1, -1, 0.5])
def test_labels_that_are_no_classes_are_refused(wrong):
    from onnx_fhe.passes.distill.training.task import _require_classes

    labels = np.arange(9) % 3
    _require_classes(labels, 3)
    with pytest.raises(DataError, match="none of the network's classes"):
        _require_classes(labels + wrong, 3)


def test_labels_are_used_only_when_asked_for(tmp_path):
    teacher, data = network(tmp_path), inputs()
    labels = np.random.default_rng(0).integers(0, 3, len(data))
    result = run(teacher, QUANTIZE)

    def weights(text: str, given) -> np.ndarray:
        context = Context(calibration=Calibration({"x": data}, given), source=teacher)
        model = PassManager.parse(text).run(result.model, context).model
        return next(iter(runtime.run(model, {"x": data}).values()))

    assert np.array_equal(
        weights("distill{rounding=3 steps=40 loss=classes}", labels),
        weights("distill{rounding=3 steps=40 loss=classes}", None),
    )
    asked = weights("distill{rounding=3 steps=40 loss=classes labels=true}", labels)
    assert not np.array_equal(asked, weights("distill{rounding=3 steps=40 loss=classes}", None))


def test_too_little_data_is_refused_or_noted(tmp_path):
    few = Context(calibration={"x": inputs(20)})
    with pytest.raises(DataError, match="too little"):
        run(network(tmp_path), QUANTIZE + ",distill", few)
    result = run(network(tmp_path), QUANTIZE + ",distill{optional=true}", few)
    assert any("distill: left out" in n for n in result.context.notes)


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
    result = run(network(tmp_path), QUANTIZE)
    for name in [m for m in sys.modules if m.startswith("onnx_fhe.passes.distill.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnsupportedError) as caught:
        PassManager.parse("distill").run(result.model, result.context)
    assert "onnx-fhe[train]" in caught.value.do
    noted = PassManager.parse("distill{optional=true}").run(result.model, result.context)
    assert any("PyTorch" in n for n in noted.context.notes)


def test_an_operator_that_cannot_be_trained_is_named(tmp_path):
    result = run(network(tmp_path, activation="Atan"), QUANTIZE)
    node = next(n for n in result.model.graph if n.op_type == "Atan")
    node.op_type = "Asinh"
    with pytest.raises(UnsupportedError) as caught:
        PassManager.parse("distill").run(result.model, result.context)
    assert caught.value.where.node == "act"
    assert caught.value.where.op == "Asinh"


def test_it_prints_and_parses():
    text = "distill{rounding=3 steps=100 optional=true}"
    assert PassManager.parse(text).to_text() == text


def test_made_samples_stay_within_what_calibration_spans():
    from onnx_fhe.analysis.augmentation.images import image_sizes
    from onnx_fhe.analysis.augmentation.pool import pool

    random = np.random.default_rng(0)
    data = {"x": random.uniform(-2, 3, (60, 5)).astype(np.float32)}
    made, first, second, share = pool(data, 10, random, image_sizes(data), 1.0)
    assert len(made["x"]) == len(first) == len(second) == len(share) == 660
    assert np.array_equal(made["x"][:60], data["x"])
    assert (made["x"] >= data["x"].min(axis=0)).all()
    assert (made["x"] <= data["x"].max(axis=0)).all()


def test_flat_images_are_recognised_and_features_are_not():
    from onnx_fhe.analysis.augmentation.images import image_sizes

    random = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(random.normal(size=(80, 9, 9)), axis=1), axis=2)
    smooth = smooth[:, :8, :8] + random.normal(size=(80, 8, 8))
    centred = smooth - smooth.mean(axis=(1, 2), keepdims=True)
    assert image_sizes({"x": random.normal(size=(80, 64)).astype(np.float32)}) == {}
    assert image_sizes({"x": np.zeros((4, 1, 8, 8), np.float32)}) == {"x": (8, 8)}
    found = image_sizes({"x": centred.reshape(80, 64).astype(np.float32)})
    assert found in ({"x": (8, 8)}, {})


def test_progress_says_how_long_is_left(tmp_path):
    said = []
    context = Context(
        calibration={"x": inputs()}, progress=lambda what, done, total: said.append((what, done, total))
    )
    run(network(tmp_path), QUANTIZE + ",distill{rounding=0 steps=30 augment=2}", context)
    told = [(what, done) for what, done, total in said if what.startswith("distill (about") and total == 30]
    assert [done for _, done in told] == [21, 30]
    assert told[-1][0].startswith("distill (about 0 s left, agreement")
