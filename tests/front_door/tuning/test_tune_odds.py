"""What a circuit loses by paired agreement, and which one wins by the odds of holding a limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnx_fhe.analysis.augmentation.pool import split
from onnx_fhe.ir.load import load
from onnx_fhe.probabilities import probabilities
from onnx_fhe.tuning.agreeing import Agreeing
from onnx_fhe.tuning.comparing import Comparer, _Asked
from onnx_fhe.tuning.goal import Goal
from onnx_fhe.tuning.judge import CAUTIOUS_ODDS, Judge
from onnx_fhe.tuning.points import Paired, Point


def point(number=0, seconds=1.0, differing=2.0, lost=1.0, calibration=0, seen=0.0, labels=True) -> Point:
    paired = Paired(200, differing, calibration, seen, labels, lost if labels else 0.0)
    return Point(
        number, "normalize", 1e-3, 0, "observed", 0.2, 0.95, 0.01, seconds, 1.0, 1, 1, 1.0, 0, f"{number}",
        paired=paired,
    )  # fmt: skip


@given(st.integers(0, 60), st.floats(-1, 1), st.integers(0, 800), st.floats(0, 0.3))
def test_no_more_is_lost_than_classes_differ_and_nothing_where_they_do_not(differing, share, count, rate):
    one = point(differing=differing, lost=share * differing, calibration=count, seen=rate * count)
    agreeing = Agreeing()
    agreeing.learn([one])
    found = agreeing.loss(one)
    assert found.error > 0
    assert 0 <= found.value <= (differing + rate * count) / 200
    if not differing and not rate:
        assert found.value == 0


def test_more_inputs_make_it_surer_and_the_measure_itself_needs_no_labels():
    few, many = point(), point(calibration=600, seen=6.0)
    agreeing = Agreeing()
    assert agreeing.loss(many).error < agreeing.loss(few).error
    alone = agreeing.loss(point(differing=4.0, labels=False))
    assert alone.value == pytest.approx(4 / 200)
    assert agreeing.loss(replace(few, paired=None)) is None


def test_luck_with_labels_is_not_believed_against_what_probabilities_foresee():
    """The point has right labels by chance: 30 of 200 inputs differ, which the network is sure of."""
    agreeing = Agreeing()
    lucky = point(differing=30.0, lost=0.0)
    lucky = replace(lucky, paired=replace(lucky.paired, validation_foreseen=20.0, foreseen=0.0))
    agreeing.learn([lucky])
    assert 0.02 < agreeing.loss(lucky).value < 0.08
    # What many points have lost on the same inputs is learned, as far as so many inputs tell.
    before = agreeing.loss(lucky).value
    agreeing.learn([lucky, *(replace(lucky, paired=replace(lucky.paired, lost=20.0)) for _ in range(4))])
    assert agreeing.loss(lucky).value > before
    # A network that is as unsure between both classes loses nothing by the change.
    unsure = replace(lucky, paired=replace(lucky.paired, validation_foreseen=0.5))
    assert agreeing.loss(unsure).value < 0.005


def classifier(tmp_path, end: str):
    weights = np.random.default_rng(0).normal(size=(3 if end != "Sigmoid" else 1, 4)).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["z"], "fc", transB=1)]
    if end:
        attributes = {"axis": 1} if end != "Sigmoid" else {}
        nodes.append(helper.make_node(end, ["z"], ["y"], "end", **attributes))
    kind = 7 if end == "ArgMax" else 1
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", 1, ["N", 4])],
        [helper.make_tensor_value_info("y" if end else "z", kind, ["N", 1 if kind == 7 else len(weights)])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load(path)


@pytest.mark.parametrize("end", ["", "Softmax", "ArgMax", "Sigmoid"])
def test_what_a_network_is_sure_of_is_foreseen_to_be_lost(tmp_path, end):
    model = classifier(tmp_path, end)
    data = {"x": np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)}
    likely = probabilities(model, data)
    assert likely.shape == (50, 2 if end == "Sigmoid" else 3)
    assert np.allclose(likely.sum(axis=1), 1)
    asked = _Asked.of(model, data)
    assert np.array_equal(asked.classes, likely.argmax(axis=1))
    assert asked.foreseen(asked.classes) == 0
    other = (asked.classes + 1) % likely.shape[1]
    lost = likely[np.arange(50), asked.classes] - likely[np.arange(50), other]
    assert asked.foreseen(other) == pytest.approx(lost.sum())
    assert asked.foreseen(other[:7], np.arange(7)) == pytest.approx(lost[:7].sum())


def test_calibration_inputs_count_for_less_where_networks_are_surer_of_them():
    agreeing = Agreeing()
    one = point(differing=8.0, lost=4.0, calibration=600, seen=6.0)
    before = agreeing.loss(one)
    agreeing.learn([replace(one, number=i) for i in range(5)])
    assert agreeing.loss(one).value > before.value


def test_the_fastest_at_even_odds_wins_and_the_cautious_one_stands_beside_it():
    judge = Judge(Goal(max_accuracy_drop=0.01), 0.96, True)
    even = point(0, 1.0, differing=3.0, lost=1.5)
    cautious = point(1, 6.0, differing=0.0, lost=0.0, calibration=600)
    missing = point(2, 0.2, differing=30.0, lost=20.0)
    points = [even, cautious, missing]
    judge.learn(points)
    assert judge.preferred(points)[0] is even
    assert 0.5 <= judge.holds(even) < CAUTIOUS_ODDS <= judge.holds(cautious)
    assert judge.holds(missing) < 0.5
    assert judge.cautious(points) is cautious
    assert replace(judge, confidence=1.28).preferred(points)[0] is cautious
    # Without a limit on accuracy there are no odds.
    assert Judge(Goal(max_latency=1.0), 0.96, True).holds(even) is None


def test_inputs_that_weights_were_fitted_to_are_left_out():
    comparer = Comparer(None, {"input": np.zeros((100, 2))}, 3)
    assert len(comparer.unseen("normalize,remove-neurons,quantize")) == 100
    assert len(comparer.unseen("normalize,remove-neurons{ratio=0.5},quantize")) == 0
    assert len(comparer.unseen("normalize,prune{sparsity=0.5},quantize")) == 0
    held = comparer.unseen("normalize,remove-neurons{ratio=0.5},quantize,distill{steps=10}")
    assert np.array_equal(held, split(100, 0.15, np.random.default_rng(3)).held)
    assert len(comparer.unseen("normalize,quantize,distill{validation-share=0}")) == 0
