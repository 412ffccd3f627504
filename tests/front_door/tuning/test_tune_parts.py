"""The parts of tune: frontier, constraints, metrics, space."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.ir import load
from onnx_fhe.ir.errors import ArtifactError, DataError, UserError
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.framework.presets import PRESETS
from onnx_fhe.tuning.frontier import Frontier, TestReport, axes_of, costs, non_dominated
from onnx_fhe.tuning.goal import Goal
from onnx_fhe.tuning.judge import Judge
from onnx_fhe.tuning.metric import Answers, resolve, standard_error
from onnx_fhe.tuning.points import Failure, Measured, Point
from onnx_fhe.tuning.shrinkage import Correction, ScoreShrinkage
from onnx_fhe.tuning.space import (
    ASSUMED_P_ERROR,
    P_ERRORS,
    TRAINING_STEPS,
    Layers,
    Space,
    alike,
    cheaper,
    exacter,
    presets,
    untrained,
)
from onnx_fhe.tuning.steps import Steps
from onnx_fhe.tuning.warm_start import Known, WarmStart, is_within

SPACE = Space((Layers(("/fc1/Gemm", "/fc2/Gemm"), ("/fc1/Gemm",)), Layers(("/fc1/Gemm",), ())))


def point(number=0, score=0.9, seconds=1.0, throughput=1.0, keys=1000, measured=None):
    return Point(
        number=number,
        pipeline="normalize",
        p_error=1e-5,
        seed=0,
        range_mode="observed",
        range_margin=0.2,
        score=score,
        score_error=None,
        seconds=seconds,
        samples_per_second=throughput,
        key_bytes=keys,
        bootstraps=3,
        complexity=1e6,
        overflows=0,
        sha256=f"{number}",
        measured=measured,
    )


# Few distinct values, so that equal and dominated points are common.
POINTS = st.lists(st.tuples(*(st.integers(0, 4) for _ in range(4))), min_size=1, max_size=25).map(
    lambda rows: [point(i, a / 4, 1.0 + b, 1.0 + c, 100 + d) for i, (a, b, c, d) in enumerate(rows)]
)
GOALS = st.sampled_from(
    [Goal(), Goal(min_throughput=1), Goal(max_key_size=1), Goal(min_throughput=1, max_key_size=1)]
)


@given(POINTS, GOALS, st.booleans())
def test_the_frontier_holds_no_dominated_point_and_covers_all_others(points, goal, higher):
    axes = axes_of(goal)
    front = non_dominated(points, axes, higher)
    on = [costs(points[n], axes, higher) for n in front]
    for i, a in enumerate(on):
        for j, b in enumerate(on):
            assert i == j or not all(x <= y for x, y in zip(a, b, strict=True))
    for other in points:
        mine = costs(other, axes, higher)
        assert any(all(x <= y for x, y in zip(a, mine, strict=True)) for a in on)
    assert [points[n].seconds for n in front] == sorted(points[n].seconds for n in front)


@given(POINTS, st.floats(0.01, 1), st.floats(0.5, 6))
def test_the_best_point_holds_the_constraints_and_no_other_is_better(points, drop, latency):
    judge = Judge(Goal(max_accuracy_drop=drop, max_latency=latency), 1.0, True)
    held = [p for p in points if p.score >= 1 - drop - 1e-9 and p.seconds <= latency]
    found = judge.best(points)
    assert {p.number for p in found} == {p.number for p in held}
    if held:
        assert found[0].seconds == min(p.seconds for p in held)


def test_without_a_limit_on_accuracy_the_most_accurate_is_best():
    judge = Judge(Goal(max_latency=2.0), 1.0, True)
    points = [point(0, 0.9, 1.0), point(1, 0.95, 1.9), point(2, 0.99, 3.0)]
    assert judge.best(points)[0].number == 1
    assert min(points, key=judge.rank).number == 1


def test_lower_may_be_better():
    judge = Judge(Goal(max_accuracy_drop=0.1), 0.2, False)
    assert [p.number for p in judge.best([point(0, 0.29), point(1, 0.31), point(2, 0.1)])] == [2, 0]


def test_the_drop_of_one_sample_in_a_hundred_is_one_point():
    judge = Judge(Goal(max_accuracy_drop=0.01), 0.95, True)
    assert judge.best([point(0, 0.94)])


def test_json_comes_back_as_it_was():
    measured = Measured(0.9, 10, 1.0, 0.5, 2, 1.0, 3.0, 4.0, 5, 6e6, 7)
    frontier = Frontier(
        model="m.onnx", metric="accuracy", higher_is_better=True, float_score=0.95, samples=10,
        goal=Goal(max_accuracy_drop=0.01), axes=("score", "seconds"), points=(point(measured=measured),),
        failures=(Failure(1, "normalize", "why", {"rounding": 3}),), front=(0,), finalists=(0,), best=0,
        test=TestReport("t.npz", 5, 0.9, 0.9, 0.1), packages={"python": "3.11"},
    )  # fmt: skip
    assert Frontier.from_json(frontier.to_json()) == frontier
    assert frontier.chosen is frontier.points[0]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"{", "Expecting"),
        (b"[]", "no format"),
        (b'{"format": 1}', "Field required"),
        (b'{"format": 99}', "format 99"),
    ],
)
def test_a_damaged_or_newer_json_is_refused(content, found):
    with pytest.raises(ArtifactError) as error:
        Frontier.from_json(content)
    assert found in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_accuracy_drop": -0.1}, {"max_latency": 0}, {"max_latency": float("nan")},
        {"min_throughput": -1}, {"max_key_size": float("inf")}, {"min_accuracy": float("nan")},
    ],
)  # fmt: skip
def test_constraints_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UserError) as error:
        Goal(**wrong)
    assert "--" + next(iter(wrong)).replace("_", "-") in str(error.value)
    assert error.value.allowed


def answers(zoo, tmp_path, outputs, labels, name="mlp"):
    import onnx

    onnx.save(zoo.NETWORKS[name](), tmp_path / "m.onnx")
    given = {"out": np.asarray(outputs, np.float32)}
    return Answers(
        given, None if labels is None else np.asarray(labels), given, load.load(tmp_path / "m.onnx")
    )


def test_metrics(zoo, tmp_path):
    classes = answers(zoo, tmp_path, [[1, 0], [0, 1], [1, 0]], [0, 1, 1])
    assert resolve("auto", classes).score(classes) == pytest.approx(2 / 3)
    unlabelled = answers(zoo, tmp_path, [[1, 0], [0, 1]], None)
    assert (resolve("auto", unlabelled).name, resolve("auto", unlabelled).score(unlabelled)) == (
        "agreement",
        1.0,
    )
    numbers = answers(zoo, tmp_path, [[1.0], [2.0], [3.0]], [1.0, 2.5, 3.0])
    assert resolve("auto", numbers).name == "r2"
    expected = 1 - 0.25 / np.sum((np.array([1, 2.5, 3]) - 6.5 / 3) ** 2)
    assert resolve("r2", numbers).score(numbers) == pytest.approx(expected)
    mean_error = resolve("mean-error", numbers)
    assert mean_error.score(numbers) == pytest.approx(0.5 / 3)
    assert not mean_error.higher_is_better


def test_standard_error_is_of_the_difference():
    same = np.array([1.0, 0, 1, 0])
    assert standard_error(same, same) == 0
    assert standard_error(np.array([1.0, 0, 0, 0]), np.array([0.0, 0, 0, 1])) == pytest.approx(
        np.sqrt(0.5) / 2
    )


@pytest.mark.parametrize(
    ("name", "labels", "kind", "said"),
    [
        ("acuracy", [0, 1], UserError, "did you mean accuracy"),
        ("accuracy", None, DataError, "no labels"),
        ("accuracy", [0.5, 1.0], DataError, "float64"),
        ("accuracy", [0, -1], DataError, "none of the network's classes"),
        ("accuracy", [5, 1000], DataError, "check that the labels are those of this network"),
        ("r2", [0, 1], DataError, "2 numbers"),
        ("no_such_module:f", [0, 1], UserError, "ModuleNotFoundError"),
        ("math:no_such_function", [0, 1], UserError, "no_such_function"),
        ("math:pi", [0, 1], UserError, "'pi'"),
        ("math:sqrt", [0, 1], UserError, "TypeError"),
        ("./missing.py:f", [0, 1], UserError, "missing.py"),
    ],
)
def test_metrics_that_do_not_work_are_refused(zoo, tmp_path, name, labels, kind, said):
    given = answers(zoo, tmp_path, [[1, 0], [0, 1]], labels)
    with pytest.raises(kind) as error:
        resolve(name, given)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [("1 / 0", "ZeroDivisionError"), ("'good'", "ValueError"), ("float('nan')", "nan")],
)
def test_a_function_of_the_users_that_fails_is_named(zoo, tmp_path, monkeypatch, body, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(f"def good(outputs, labels):\n    return {body}\n")
    with pytest.raises(UserError) as error:
        resolve("mine.py:good", answers(zoo, tmp_path, [[1, 0]], [0]))
    assert said in str(error.value)
    assert "mine.py:good" in str(error.value)


CHOICES = st.fixed_dictionaries(
    {
        "layers": st.integers(-1, 3), "neurons": st.integers(-1, 9), "sparsity": st.integers(0, 4),
        "distill": st.integers(0, 3), "weights": st.integers(0, 9), "inputs": st.integers(1, 9),
        "activations": st.integers(1, 9), "rounding": st.integers(1, 9), "error": st.integers(0, 9),
        "mixed": st.integers(0, 1), "calibration": st.sampled_from(["mse", "min-max"]),
        "weights@/fc1/Gemm": st.integers(-2, 2), "rounding@/fc1/Gemm": st.integers(-2, 2),
    }
)  # fmt: skip


@settings(max_examples=30)
@given(CHOICES, st.booleans())
def test_every_choice_is_a_pipeline_that_prints_as_it_parses(given_choice, quantized):
    space = Space(SPACE.layers[:1], quantized=True) if quantized else SPACE
    chosen = space.complete(given_choice)
    assert space.complete(chosen) == chosen
    text = space.pipeline(chosen)
    assert PassManager.parse(PassManager.parse(text).to_text()).to_text() == PassManager.parse(text).to_text()
    json.dumps(space.readable(chosen))
    for step in (*cheaper(space, chosen), *exacter(space, chosen)):
        assert space.complete(step) == step
        assert PassManager.parse(space.pipeline(step))


def test_options_of_single_layers_name_layers_that_are_there():
    chosen = SPACE.complete(
        {"layers": 1, "mixed": 1, "weights@/fc2/Gemm": 1, "weights@/fc1/Gemm": -1, "distill": 0}
    )
    text = SPACE.pipeline(chosen)
    assert "fc2" not in text
    assert "layers={/fc1/Gemm={weights=5}}" in text


def test_an_error_is_said_where_it_is_not_the_one_that_passes_are_told():
    for index, p_error in enumerate(P_ERRORS):
        text = SPACE.pipeline(SPACE.complete({"error": index}))
        assert ("set-p-error" in text) == (p_error != ASSUMED_P_ERROR)
    # What was asked for is what passes are told.
    given = Space(SPACE.layers, p_errors=(0.01,), assumed=0.01)
    assert "set-p-error" not in given.pipeline(given.complete({}))


def test_presets_are_there_for_where_nothing_else_holds():
    assert {text for _, text in presets(SPACE)} == {p.text for p in PRESETS.values()}


class Climb:
    """What a warm start tries, where a network keeps its accuracy down to a size."""

    def __init__(self, goal, smallest=0.0, seconds=None):
        self.judge = Judge(goal, 0.95, True)
        self.warm_start = WarmStart(SPACE, self.judge, seconds)
        self.smallest, self.points, self.choices = smallest, [], {}

    def known(self):
        return Known(self.points, self.choices, lambda c: c in self.choices.values())

    def cost(self, chosen):
        """Seconds."""
        size = (2 - chosen["layers"]) * (16 - chosen["neurons"])
        return size * (1.0 if chosen["rounding"] == 4 else 1.25)

    def try_out(self, chosen):
        number, cost = len(self.points), self.cost(chosen)
        held = cost >= self.smallest and chosen["distill"]
        self.choices[number] = chosen
        self.points.append(replace(point(number, 0.95 if held else 0.8, cost), score_error=0.01))

    def run(self, elapsed=0.0):
        while (chosen := self.warm_start.next(self.known(), elapsed)) is not None:
            assert chosen not in self.choices.values()
            self.try_out(chosen)
        return list(self.choices.values())


def test_a_warm_start_is_something_plain_and_a_student():
    first = Climb(Goal(max_accuracy_drop=0.01)).warm_start.first()
    assert [TRAINING_STEPS[c["distill"]] for c in first] == [0, 1000]
    assert (first[0]["neurons"], first[1]["layers"]) == (0, 1)
    quick = WarmStart(Space(SPACE.layers, trains=False), Judge(Goal(), 0.9, True), None)
    assert len(quick.first()) == 1


@settings(max_examples=25)
@given(st.integers(1, 33))
def test_a_warm_start_finds_the_smallest_size_that_holds_and_trains_few(smallest):
    climb = Climb(Goal(max_accuracy_drop=0.01), smallest)
    tried = climb.run()
    held = [c for c in climb.warm_start._rungs if climb.cost(c) >= smallest]
    best = climb.judge.best(climb.points)
    assert bool(best) == bool(held)
    if held:
        # Within what is not worth another student.
        assert best[0].seconds <= min(map(climb.cost, held)) / 0.97
    trained = [c for c in tried if c["distill"]]
    assert len(trained) <= len(climb.warm_start._rungs) / 2
    # Each was looked at before it was trained.
    assert all(untrained(SPACE, {**c, "rounding": 4}) in tried[: tried.index(c)] for c in trained)


def test_what_is_smaller_than_something_that_clearly_missed_is_not_trained():
    climb = Climb(Goal(max_accuracy_drop=0.01), smallest=1e9)
    trained = [c for c in climb.run() if c["distill"]]
    for later, small in enumerate(trained):
        assert not any(is_within(small, large) for large in trained[:later])


def test_where_only_cost_is_limited_the_most_expensive_that_is_allowed_comes_first():
    climb = Climb(Goal(max_latency=17.0))
    tried = climb.run()
    trained = [climb.cost(c) for c in tried if c["distill"]]
    assert trained[0] == max(trained) <= 1.3 * 17


def test_looking_ends_in_time_and_long_training_is_not_begun():
    climb = Climb(Goal(max_accuracy_drop=0.01), seconds=100.0)
    assert climb.warm_start.next(climb.known(), 50.0) is None
    brief = SPACE.complete({"distill": 1})
    climb.try_out(brief)
    climb.try_out(untrained(SPACE, brief))
    climb.points[0] = replace(climb.points[0], trial_seconds=30.0)
    assert TRAINING_STEPS[climb.warm_start._grade(climb.known())] == 1000
    climb.points[0] = replace(climb.points[0], trial_seconds=2.0)
    assert TRAINING_STEPS[climb.warm_start._grade(climb.known())] == 4000


def test_sure_points_go_before_barely_holding_ones():
    sure = Judge(Goal(max_accuracy_drop=0.01), 0.95, True, confidence=1.0)
    barely = replace(point(0, 0.945, seconds=1.0), score_error=0.01)
    clear = replace(point(1, 0.951, seconds=2.0), score_error=0.01)
    missing = replace(point(2, 0.92, seconds=0.1), score_error=0.01)
    assert [p.number for p in sure.best([missing, barely, clear])] == [1, 0]
    assert [p.number for p in sure.best([missing, barely])] == [0]
    assert [p.number for p in replace(sure, confidence=0.0).best([barely, clear])] == [0, 1]
    assert sure.is_short(missing, 1.0)
    assert not sure.is_short(replace(missing, score=0.935), 1.0)
    errors = Judge(Goal(min_accuracy=0.1), 0.05, False, confidence=1.0)
    assert errors.is_sure(replace(point(score=0.08), score_error=0.01))
    assert not errors.is_sure(replace(point(score=0.095), score_error=0.01))


def like(number, score, neurons=8, error=0.01, **parameters):
    """A student of so many sixteenths less neurons."""
    chosen = {"layers": 1, "neurons": neurons, "rounding": 4, "distill": 4000, "p_error": 0.001, **parameters}
    return replace(point(number, score), score_error=error, parameters=chosen)


def test_the_luckiest_of_equals_is_worth_what_they_are_worth():
    judge = Judge(Goal(max_accuracy_drop=0.01), 0.95, True, confidence=1.0)
    scores = [0.936, 0.944, 0.952, 0.94]
    points = [like(i, s, weights=i) for i, s in enumerate(scores)]
    # One and the same network under another error is no other network.
    points.append(like(9, 0.951, weights=2, p_error=0.01))
    assert judge.is_sure(points[2])
    judge.shrinkage.learn(points)
    mean = np.mean([0.936, 0.944, 0.9515, 0.94])
    assert judge.expected(points[2]) == pytest.approx(0.952 - (0.9515 - mean))
    assert not judge.is_sure(points[2])
    assert judge.miss(points[2]) == 0
    # Of another size, and alone: nothing is known.
    other = like(7, 0.95, neurons=4)
    assert judge.expected(other) == 0.95
    assert judge.expected(like(8, 0.97, neurons=4)) == 0.95  # of what it imitates
    assert replace(judge, higher_is_better=False).expected(like(8, 0.9, neurons=4)) == 0.95
    assert judge.shrinkage.is_alone(other)
    assert not judge.shrinkage.is_alone(points[2])


@settings(max_examples=50)
@given(st.lists(st.floats(0.5, 1.0), min_size=3, max_size=9), st.floats(1e-4, 0.1))
def test_scores_are_drawn_to_their_mean_and_never_past_it(scores, error):
    shrinkage = ScoreShrinkage()
    points = [like(i, s, error=error, weights=i) for i, s in enumerate(scores)]
    shrinkage.learn(points)
    mean = np.mean(scores)
    for one in points:
        found = shrinkage.correction(one)
        moved = one.score + found.shift
        assert min(one.score, mean) - 1e-9 <= moved <= max(one.score, mean) + 1e-9
        assert 0 < found.error <= error * (1 + 1e-9)
    if np.ptp(scores) < error / 4:
        # What all owe to the samples no mean does away with.
        assert shrinkage.correction(points[0]).error > 0.9 * error


def test_differences_far_beyond_chance_stay_and_metrics_without_errors_are_left_alone():
    shrinkage = ScoreShrinkage()
    points = [like(i, s, error=0.001, weights=i) for i, s in enumerate([0.7, 0.8, 0.9])]
    shrinkage.learn(points)
    assert shrinkage.correction(points[2]).shift == pytest.approx(0.0, abs=1e-4)
    points = [like(i, s, error=None, weights=i) for i, s in enumerate([0.7, 0.8, 0.9])]
    shrinkage.learn(points)
    assert shrinkage.correction(points[2]) == Correction(0.0, None)
    assert not shrinkage.is_alone(like(5, 0.9, error=None))


def test_others_of_a_size_cost_the_same():
    student = SPACE.complete({"layers": 1, "neurons": 8, "distill": 2, "weights": 4, "activations": 6})
    found = list(alike(SPACE, student))
    assert len(found) >= 3
    same = ("layers", "neurons", "rounding", "distill", "error", "sparsity")
    assert all(c != student and all(c[n] == student[n] for n in same) for c in found)


def test_nothing_expensive_is_given_up_for_a_point_that_is_not_sure():
    climb = Climb(Goal(max_accuracy_drop=0.01))
    climb.judge = replace(climb.judge, confidence=1.0)
    climb.warm_start.judge = climb.judge
    small = SPACE.complete({"layers": 1, "neurons": 14, "distill": 2})
    climb.choices[0] = small
    climb.points.append(replace(point(0, 0.945, 0.1), score_error=0.01))
    assert climb.judge.surest(climb.points) is None
    assert climb.warm_start._limit(climb.known()) == float("inf")
    climb.points[0] = replace(climb.points[0], score=0.96)
    assert climb.warm_start._limit(climb.known()) == 0.1


def test_guesses_that_are_too_expensive_come_at_the_size_of_the_best():
    climb = Climb(Goal(max_accuracy_drop=0.01))
    small = SPACE.complete({"layers": 1, "neurons": 12, "distill": 2, "weights": 4, "activations": 6})
    large = SPACE.complete({"layers": 1, "neurons": 2, "distill": 1, "weights": 3, "inputs": 5})
    for chosen in (small, untrained(SPACE, large)):
        climb.try_out(chosen)
    climb.points[0] = replace(climb.points[0], score=0.96)
    steps = Steps(SPACE, climb.judge, climb.known(), climb.points)
    assert steps.is_useless(large)
    assert not steps.is_useless(small)
    found = steps.resized(large)
    assert (found["neurons"], found["distill"]) == (12, 2)
    assert (found["weights"], found["inputs"]) == (3, 5)
    # Its own size is what others like it have, and they are no waste: they show how lucky it is.
    assert all(c["neurons"] == 12 for c in steps.like_best())
    assert list(steps.like_best())


def test_of_points_as_fast_as_the_fastest_the_most_accurate_is_preferred():
    judge = Judge(Goal(max_accuracy_drop=0.01), 0.95, True)
    fast, alike, slow = point(0, 0.945, 1.0), point(1, 0.949, 1.14), point(2, 0.99, 1.2)
    missing = point(3, 0.93, 0.1)
    assert [p.number for p in judge.preferred([fast, slow, missing, alike])] == [1, 0, 2]
    assert [p.number for p in judge.best([fast, slow, missing, alike])] == [0, 1, 2]
    # One that is not sure does not go before one that is.
    sure = replace(judge, confidence=1.0)
    doubtful = replace(alike, score_error=0.1)
    assert [p.number for p in sure.preferred([replace(fast, score_error=0.001), doubtful])] == [0, 1]
    assert judge.preferred([missing]) == []
    cheap = Judge(Goal(max_latency=2.0), 0.95, True)
    assert cheap.preferred([fast, slow, alike]) == cheap.best([fast, slow, alike])


def test_a_best_point_off_the_frontier_says_why():
    def frontier(best):
        found = [point(0, 0.95, 1.0), point(1, 0.94, 2.0)]
        axes = axes_of(Goal(max_accuracy_drop=0.1))
        return Frontier(
            model="m.onnx", metric="accuracy", higher_is_better=True, float_score=0.95, samples=100,
            goal=Goal(max_accuracy_drop=0.1), confidence=1.28, axes=axes, points=tuple(found), failures=(),
            front=non_dominated(found, axes, True), finalists=(), best=best, nearest=None, unmet=(),
            backend="concrete", seed=0, priced_with="", test=None, notes=(), packages={},
        )  # fmt: skip

    assert frontier(0).front == (0,)
    assert frontier(0).why == frontier(None).why == ""
    assert "1.28" in frontier(1).why
