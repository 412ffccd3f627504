"""Finalists whose passes fitted weights to inputs are judged on all inputs, each by a network without it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("optuna")

from onnx_fhe.ir.save import serialize
from onnx_fhe.passes.compress.shrink.folds import FOLDS, crossed
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.tuning.clock import Clock
from onnx_fhe.tuning.comparing import Comparer
from onnx_fhe.tuning.crossing import Crossing, reserved
from onnx_fhe.tuning.points import Paired, Point
from onnx_fhe.tuning.trying import Candidate

STUDENT = (
    "normalize,remove-layers{count=1},quantize{weights=3 inputs=3},distill{rounding=3 steps=20},"
    "lower-to-integer,fuse-tlu,insert-rounding{bits=3}"
)


@pytest.fixture(scope="module")
def tester(searches, tmp_path_factory):
    return searches._tester(searches.write(tmp_path_factory.mktemp("crossing")))


@pytest.fixture(scope="module")
def student(tester):
    found = tester.try_out(Candidate(STUDENT, 1e-3)).found
    return Point(number=7, **{**found, "paired": Paired(**found["paired"])})


def test_each_input_is_asked_of_a_network_that_was_made_without_it(tester, student, monkeypatch):
    asked = []
    ask = tester.comparer.differing

    def spy(model, p_error, held):
        asked.append((hashlib.sha256(serialize(model)).hexdigest(), held))
        return ask(model, p_error, held)

    monkeypatch.setattr(tester.comparer, "differing", spy)
    assert student.paired.calibration < tester.comparer.total
    crossing = Crossing(tester, Clock())
    assert crossing.is_due(student)
    found = crossing.judged(student)
    assert np.array_equal(np.sort(np.concatenate([held for _, held in asked])), np.arange(60))
    assert (found.paired.calibration, found.paired.is_crossed) == (60, True)
    # Only the judgement is another: the circuit, and what is known of it otherwise, stay.
    assert replace(found, paired=student.paired) == student
    assert crossing.notes == [
        "trial 7 is judged by all 60 calibration inputs, cross-fitted in 4 parts:"
        f" {found.paired.differing:.0f} have another class"
    ]
    assert not crossing.is_due(student), "nothing is tried twice"
    assert Crossing(tester, Clock()).judged(student) == found, "it is the same each time"
    # What is asked is what the passes make of the other inputs alone.
    context = replace(tester.task.context(1e-3), source=tester.source.clone())
    fold = crossed(context, 60)[0]
    others = {k: v[np.setdiff1d(np.arange(60), fold.held)] for k, v in tester.task.calibration.items()}
    assert {k: v.tobytes() for k, v in fold.fitting.calibration.items()} == {
        k: v.tobytes() for k, v in others.items()
    }
    made = PassManager.parse(STUDENT).run(tester.source.clone(), fold.fitting).model
    assert hashlib.sha256(serialize(made)).hexdigest() == asked[0][0]


def test_without_time_the_inputs_that_were_held_back_judge_and_that_is_said(tester, student):
    crossing = Crossing(tester, Clock(FOLDS * 10.0 - 1))
    assert crossing.judged(replace(student, trial_seconds=10.0)).paired == student.paired
    (note,) = crossing.notes
    assert f"judged by the {student.paired.calibration} calibration inputs" in note
    assert "there was no time" in note


def test_what_no_weight_was_fitted_to_needs_none(tester, student):
    crossing = Crossing(tester, Clock())
    assert not crossing.is_due(replace(student, paired=replace(student.paired, calibration=60)))
    assert not crossing.is_due(replace(student, paired=None)), "it has no classes"


def test_time_is_kept_back_for_students_where_it_is_a_small_share(student):
    trained = replace(student, parameters={"distill": 1000}, trial_seconds=5.0)
    assert reserved([trained, student], 600.0) == FOLDS * 5.0
    assert reserved([trained], 100.0) == 0.0
    assert reserved([replace(student, parameters={})], 600.0) == 0.0


def test_a_search_cross_fits_the_best_and_says_so(searches, tmp_path, monkeypatch):
    # As if every trial had fitted weights to most inputs.
    monkeypatch.setattr(Comparer, "unseen", lambda *_: np.arange(15))
    found = searches.run(searches.write(tmp_path))
    best = found.frontier.point(found.frontier.best)
    assert best.paired.is_crossed
    assert best.paired.calibration == 60
    assert any(f"trial {best.number} is judged by all 60" in n for n in found.frontier.notes)
    assert hashlib.sha256(serialize(found.program.integer_model)).hexdigest() == best.sha256
