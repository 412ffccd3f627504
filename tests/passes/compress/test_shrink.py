"""shrink: the smallest network that keeps to the stated loss, judged on inputs that nothing was fitted to."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import onnx_fhe
from onnx_fhe.analysis.outputs.answers import wilson
from onnx_fhe.analysis.outputs.expectation import Expectation
from onnx_fhe.ir.level import Level, level_of
from onnx_fhe.ir.load import load
from onnx_fhe.manifest import from_json
from onnx_fhe.passes import Context
from onnx_fhe.passes.compress.shrink.judge import Judge
from onnx_fhe.passes.compress.shrink.pace import Pace
from onnx_fhe.passes.compress.shrink.search import Search, Tried
from onnx_fhe.passes.compress.shrink.settings import ShrinkSettings
from onnx_fhe.passes.compress.shrink.sizes import LARGE, NEXT, SMALL, USUAL
from onnx_fhe.passes.framework.manager import PassManager

pytest.importorskip("torch")

SETTINGS = ShrinkSettings(loss=0.01, validation_share=0.3, weights=4, activations=6)


def network(tmp_path, *, outputs: int = 3, side: int = 0) -> ir.Model:
    """6-24-outputs with ReLU; or a convolution of 8 channels over a square of that side."""
    random = np.random.default_rng(0)
    if side:
        shapes = {"w1": (8, 1, 3, 3), "w2": (outputs, 8 * side * side)}
        nodes = [
            helper.make_node("Conv", ["x", "w1", "b1"], ["h"], "fc1", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["h"], ["a"], "act"),
            helper.make_node("Flatten", ["a"], ["f"], "flat"),
            helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], "fc2", transB=1),
        ]
        shape = ["N", 1, side, side]
    else:
        shapes = {"w1": (24, 6), "w2": (outputs, 24)}
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "fc1", transB=1),
            helper.make_node("Relu", ["h"], ["a"], "act"),
            helper.make_node("Gemm", ["a", "w2", "b2"], ["y"], "fc2", transB=1),
        ]
        shape = ["N", 6]
    weights = {k: random.normal(size=s) for k, s in shapes.items()}
    weights |= {f"b{k[1]}": random.normal(size=s[0]) * 0.2 for k, s in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, ["N", outputs])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load(path)


def inputs(count: int = 240) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 6)).astype(np.float32)


@pytest.fixture
def quick(monkeypatch):
    """Training takes a moment."""
    monkeypatch.setattr(Pace, "of", classmethod(lambda cls, model: cls(20, 32, 1.0)))


def run(model: ir.Model, options: str, count: int = 240):
    context = Context(calibration={"x": inputs(count)})
    return PassManager.parse(f"normalize,shrink{options}").run(model, context)


def test_what_keeps_to_the_loss_is_taken_and_its_samples_are_named(tmp_path, quick):
    result = run(network(tmp_path), "{loss=1}")
    assert level_of(result.model) is Level.INTEGER
    assert any(n.startswith("shrink: took remove-layers") for n in result.context.notes)
    assert any("expected on new inputs" in n and "within" in n for n in result.context.notes)
    (held,) = result.context.findings.unfitted
    assert len(held) == 72


def test_what_loses_more_is_not_taken(tmp_path, quick):
    result = run(network(tmp_path), "{loss=0}")
    notes = result.context.notes
    assert any("past 0.00%" in n for n in notes)
    assert any(n.startswith("shrink: nothing was removed or trained: smaller networks") for n in notes)
    assert any(n.startswith("shrink: took quantize{weights=6") for n in notes)
    assert len(result.context.findings.unfitted[-1]) == 72


def test_what_judges_is_not_among_what_is_fitted(tmp_path):
    model = PassManager.parse("normalize").run(network(tmp_path)).model
    search = Search(SETTINGS, model, Context(calibration={"x": inputs()}, source=model))
    fitted, held = search.fitting.calibration["x"], inputs()[search.folds[0].held]
    assert len(fitted) + len(held) == 240
    assert not {a.tobytes() for a in fitted} & {a.tobytes() for a in held}


@pytest.mark.parametrize(("count", "why"), [(40, "too few to judge"), (90, "too few to train on")])
def test_few_samples_are_not_trained_on(tmp_path, count, why):
    notes = run(network(tmp_path), "{loss=0}", count).context.notes
    assert any(why in n or "smaller networks would lose" in n for n in notes)
    assert not any("distill" in n for n in notes)


def test_few_samples_judge_in_turns(tmp_path):
    """Every sample is asked of a circuit that was not fitted to it; the one that is taken saw all."""
    model = network(tmp_path)
    search = Search(
        SETTINGS,
        PassManager.parse("normalize").run(model).model,
        context := Context(calibration={"x": inputs(90)}, source=model),
    )
    assert sorted(np.concatenate([f.held for f in search.folds])) == list(range(90))
    for fold in search.folds:
        assert not set(fold.held) & set(fold.train)
        assert len(fold.fitting.calibration["x"]) == len(fold.train)
    assert len(search.fitting.calibration["x"]) == 90
    assert not context.findings.unfitted
    program = onnx_fhe.compile(
        model, inputs(90), pipeline="normalize,shrink{loss=1}", backend="reference", accept_loss=True
    )
    found = program.manifest.fidelity.expected
    assert (found.samples, found.folds) == (90, 4)
    assert "each asked of one of 4 circuits that were not fitted to it" in program.manifest.fidelity.headline
    assert from_json(program.manifest.to_json()).fidelity.expected == found


def test_with_very_few_samples_nothing_is_held_back(tmp_path):
    assert not run(network(tmp_path), "", 40).context.findings.unfitted


def test_the_expectation_is_told_and_remembered(tmp_path, quick):
    program = onnx_fhe.compile(
        network(tmp_path),
        inputs(),
        pipeline="normalize,shrink{loss=1}",
        backend="reference",
        accept_loss=True,
    )
    found = program.manifest.fidelity.expected
    assert found.samples == 72
    assert found.low <= found.value <= found.high
    assert program.manifest.fidelity.headline.startswith("on new inputs ")
    assert "72 calibration inputs that no weight was fitted to" in program.manifest.fidelity.headline
    assert from_json(program.manifest.to_json()).fidelity.expected == found


def test_without_training_there_is_no_such_expectation(tmp_path):
    program = onnx_fhe.compile(network(tmp_path), inputs(), pipeline="balanced", backend="reference")
    assert program.manifest.fidelity.expected is None
    assert program.manifest.fidelity.headline.startswith("on 240 calibration samples")


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_circuit_that_follows_the_network_loses_nothing(tmp_path, outputs):
    model = network(tmp_path, outputs=outputs)
    exact = "normalize,quantize{weights=8 activations=8 inputs=8},lower-to-integer,fuse-tlu"
    data = {"x": inputs()}
    integer = PassManager.parse(exact).run(model, Context(calibration=data)).model
    found = Judge(model, data, np.arange(100), 0, 1e-5).expect(integer)
    assert found.kind == ("values" if outputs == 1 else "classes")
    assert found.value > 0.95
    assert found.low <= found.value <= found.high
    assert found.loss < 0.02


def test_intervals_of_a_share():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 166)[0] == pytest.approx(0.9774, abs=1e-4)
    assert wilson(1.0, 166)[1] == pytest.approx(1.0)


def test_large_networks_are_trained_no_longer_than_small_ones(tmp_path):
    normal = PassManager.parse("normalize")
    small, large, huge = (Pace.of(normal.run(network(tmp_path, side=side)).model) for side in (0, 16, 200))
    assert small.steps > large.steps
    assert small.batch > large.batch
    assert small.seconds <= 31
    assert large.seconds <= 31
    assert not large.too_long
    assert huge.too_long


@pytest.mark.parametrize(
    ("prices", "taken"), [((1.0, 2.0, 2.5), "bits=6"), ((1.0, 2.0, 4.0), "bits=5"), ((1.0, 4.0, 4.0), "auto")]
)
def test_a_whole_network_that_loses_too_much_gets_wider_tables(tmp_path, monkeypatch, prices, taken):
    """As long as they cost no more than three times as much."""
    model = PassManager.parse("normalize").run(network(tmp_path)).model
    search = Search(SETTINGS, model, Context(calibration={"x": inputs()}, source=model))
    losses = iter((0.05, 0.04, 0.03))

    def made(size, first, second, notes):
        return Tried(second, notes, second, Expectation("classes", 72, 0.9, 0.8, 1.0, next(losses), 0.0))

    def priced(text):
        return SimpleNamespace(complexity=prices[("bits=auto" in text, "bits=5" in text, True).index(True)])

    monkeypatch.setattr(search, "_made", made)
    monkeypatch.setattr("onnx_fhe.passes.compress.shrink.search.estimate", priced)
    assert taken in search.plain("it is a test").pipeline


@pytest.mark.parametrize("first", [True, False])
def test_a_constant_beside_what_is_computed_is_not_imitated(tmp_path, first):
    path = tmp_path / "net.onnx"
    network(tmp_path)
    proto = onnx.load(path)
    proto.graph.initializer.append(numpy_helper.from_array(np.float32([1, 2]), "fixed"))
    proto.graph.node.append(helper.make_node("Identity", ["fixed"], ["k"], "keep"))
    outputs = [*proto.graph.output, helper.make_tensor_value_info("k", 1, [2])]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs[::-1] if first else outputs)
    onnx.save(proto, path)
    data = {"x": np.random.default_rng(0).normal(size=(220, 6)).astype(np.float32)}
    text = (
        "normalize,quantize{weights=3 activations=4},distill{steps=20},lower-to-integer,fuse-tlu,"
        "insert-rounding{bits=3}"
    )
    program = onnx_fhe.compile(path, data, text, backend="reference", accept_loss=True)
    np.testing.assert_array_equal(program.run(data).outputs["k"], [1, 2])
    assert program.manifest.fidelity.steps, "it strays, and which step lost most is said"
    assert program.manifest.fidelity.expected.samples > 0


@pytest.mark.parametrize(
    ("losses", "tried"),
    [
        ((0.03, 0.004, 0.004, 0.02), [(USUAL, 4), (USUAL, 5), (NEXT[0], 5), (SMALL, 5)]),
        ((0.03, 0.004, 0.02), [(USUAL, 4), (USUAL, 5), (NEXT[0], 5)]),
        ((0.03, 0.008), [(USUAL, 4), (USUAL, 5)]),
        ((0.03, 0.02, 0.004), [(USUAL, 4), (USUAL, 5), (LARGE, 5)]),
        ((0.08, 0.004), [(USUAL, 4), (LARGE, 5)]),
    ],
)
def test_smaller_networks_are_tried_with_finer_tables_while_these_lose_little(
    tmp_path, monkeypatch, losses, tried
):
    model = PassManager.parse("normalize").run(network(tmp_path)).model
    search = Search(SETTINGS, model, Context(calibration={"x": inputs()}, source=model))
    counts = {USUAL: 60, NEXT[0]: 40, SMALL: 20, LARGE: 90}
    expected, asked = iter(losses), []

    def student(size, bits):
        asked.append((size, bits))
        return Tried(model, [], str(size), Expectation("classes", 72, 0.9, 0.8, 1.0, next(expected), 0.0))

    monkeypatch.setattr(search, "removed", lambda size: (counts[size], []))
    monkeypatch.setattr(search, "student", student)
    monkeypatch.setattr("onnx_fhe.passes.compress.shrink.search.bootstraps", lambda count: count)
    so_far: list[Tried] = []
    for found in search._candidates(so_far):
        so_far.append(found)
    assert asked == tried
