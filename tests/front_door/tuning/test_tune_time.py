"""A search keeps to its time, can be stopped, and makes the same circuits on any number of threads."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna")

import onnx_fhe
from onnx_fhe.ir.errors import UserError
from onnx_fhe.ir.save import serialize
from onnx_fhe.passes.distill.distill import Distill
from onnx_fhe.passes.framework.base import Context, Pass
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.tuning import stages, trying
from onnx_fhe.tuning import tune as tune_module
from onnx_fhe.tuning.clock import Clock, OutOfTimeError, bounded
from onnx_fhe.tuning.kinds import Kinds
from onnx_fhe.tuning.probing import probe
from onnx_fhe.tuning.recalling import recalled
from onnx_fhe.tuning.space import Layers, Space
from onnx_fhe.tuning.trying import Candidate, Outcome
from onnx_fhe.tuning.tune import tune

TRAINED = (
    "normalize,remove-layers{count=1},quantize{weights=3 inputs=3},distill{rounding=3 steps=20},"
    "lower-to-integer,fuse-tlu,insert-rounding{bits=3}"
)


LOOKED: list[Space] = []
QUICK = {"backend": "reference", "distill": False, "finalists": 1, "jobs": 1}


@pytest.fixture(scope="module")
def small(searches, tmp_path_factory) -> dict[str, Path]:
    return searches.write(tmp_path_factory.mktemp("small"))


@pytest.fixture
def tester(searches, small) -> trying.Tester:
    return searches._tester(small)


@pytest.fixture(autouse=True)
def look_once(monkeypatch):
    """Looking at the same model again finds the same."""

    def look(tester, **options):
        if not LOOKED:
            LOOKED.append(probe(tester, **options))
        return LOOKED[0]

    monkeypatch.setattr(tune_module, "probe", look)


def sha256(model) -> str:
    return hashlib.sha256(serialize(model)).hexdigest()


def sleep_bounded() -> None:
    with bounded(0.2):
        with bounded(5.0):
            pass
        time.sleep(5.0)


def test_what_is_bounded_ends_in_time_and_bounds_around_it_go_on():
    began, timer = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)[0]
    with pytest.raises(OutOfTimeError):
        sleep_bounded()
    assert time.monotonic() - began < 4
    with bounded(float("inf")):
        pass
    with pytest.raises(OutOfTimeError), bounded(0.0):
        raise AssertionError("begun")
    # The timer of pytest, where it has one.
    assert bool(signal.getitimer(signal.ITIMER_REAL)[0]) == bool(timer)


def test_what_asks_for_an_end_waits_until_the_journal_is_written():
    """In a process of its own: a signal that went astray would end the tests."""
    code = """
import os, signal, time
from onnx_fhe.tuning.clock import undisturbed

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
try:
    with undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        print("written")
except KeyboardInterrupt:
    print("ended")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["written", "ended", "True"]


def test_who_stops_leaves_a_moment():
    clock = Clock()
    assert clock.left() == float("inf")
    clock.stop()
    assert clock.stopped
    assert 0 < clock.left() <= 10
    short = Clock(1.0)
    short.stop()
    assert short.left() <= 1


def late_after(monkeypatch, count: int) -> None:
    """The time is over in the trial after so many."""
    quick, calls = trying.Tester.try_out, iter(range(10**6))

    def try_out(self, candidate):
        if next(calls) >= count:
            raise OutOfTimeError
        return quick(self, candidate)

    monkeypatch.setattr(trying.Tester, "try_out", try_out)


def run(small, **options):
    return tune(
        small["model"], small["calibration"], small["data"],
        **{**QUICK, "max_accuracy_drop": 0.1, **options},
    )  # fmt: skip


def test_a_trial_that_takes_too_long_is_stopped_and_the_best_so_far_is_left(small, monkeypatch):
    late_after(monkeypatch, 1)
    found = run(small, seconds=100.0)
    assert found.program is not None
    assert len(found.frontier.points) == 1
    assert any("was running" in n for n in found.frontier.notes)


def test_a_finalist_that_there_is_no_time_to_measure_counts_as_predicted(small, monkeypatch):
    from onnx_fhe.tuning.finals import Finals

    def late(*_):
        raise OutOfTimeError

    monkeypatch.setattr(Finals, "_measure", late)
    found = run(small, seconds=100.0, trials=1)
    assert found.program is not None
    assert found.frontier.chosen.measured is None
    assert any("is not measured" in n for n in found.frontier.notes)


def test_where_no_trial_ends_in_time_it_says_so(small, monkeypatch):
    late_after(monkeypatch, 0)
    with pytest.raises(UserError, match="no pipeline made a circuit") as error:
        run(small, seconds=1.0)
    assert "--seconds" in str(error.value)


def test_the_nearest_circuit_is_left_where_none_holds_the_constraints(small, monkeypatch):
    from onnx_fhe import compiling

    monkeypatch.setattr(compiling, "require_faithful", lambda *_, **__: None)
    found = run(small, trials=1, max_latency=1e-6)
    assert found.program is None
    assert found.nearest is not None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_stopped_after_some_trials_the_command_leaves_a_circuit_that_loads(small, tmp_path, number, status):
    out = tmp_path / "best.fhe"
    command = [
        sys.executable, "-m", "onnx_fhe", "tune", small["model"], "--calibration", small["calibration"],
        "--data", small["data"], "-o", out, "--backend", "reference", "--no-distill", "--jobs", "1",
        "--max-accuracy-drop", "0.2", "--seconds", "300",
    ]  # fmt: skip
    process = subprocess.Popen(
        [str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    journal = tmp_path / "best.tune.journal"
    limit = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < limit:
        if journal.exists() and journal.read_text().count('"found"') >= 1:
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status, said
    assert "goes on where it was" in said
    data = np.load(small["test"])["input"]
    assert onnx_fhe.Program.load(out).run({"input": data}).samples == len(data)


def test_a_student_is_recalled_and_not_trained_again(tester, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "MIN_SHARED_SECONDS", 0.0)
    tester = trying.Tester(tester.task, tmp_path)
    found = tester.try_out(Candidate(TRAINED, 1e-3)).found
    whole = PassManager.parse(TRAINED)

    def trained(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(Distill, "run", trained)
    manager = recalled(TRAINED, 1e-3, tmp_path)
    assert manager.to_text() == whole.to_text()
    result = manager.run(tester.source, tester.task.context(1e-3))
    assert sha256(result.model) == found["sha256"]
    assert any(n.startswith("distill: trained on") for n in result.context.notes)
    # What another error was told to is another student.
    assert not any(type(p).__name__ == "Recalled" for p in recalled(TRAINED, 1e-2, tmp_path).passes)


class Threads(Pass):
    """Says on how many threads linear algebra runs."""

    name = "threads"

    def run(self, model, context: Context) -> bool:
        from threadpoolctl import threadpool_info

        found = [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
        context.notes.append(str(max(found)))
        return False


def test_passes_compute_on_one_thread_whatever_the_process_uses(tester):
    from threadpoolctl import threadpool_limits

    with threadpool_limits(2, user_api="blas"):
        assert PassManager([Threads()]).run(tester.source).context.notes == ["1"]


def test_a_point_is_the_same_on_any_number_of_threads(tester):
    """Reduced by least squares and trained: what depends on sums of floating-point numbers."""
    from threadpoolctl import threadpool_limits

    manager = PassManager.parse(
        "normalize,remove-layers{count=1},remove-neurons{ratio=0.25 balance=uniform},prune{sparsity=0.2"
        " method=obs},quantize{weights=4},distill{rounding=4 steps=10},lower-to-integer,fuse-tlu"
    )
    found = set()
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.add(sha256(manager.run(tester.source, tester.task.context(1e-3)).model))
    assert len(found) == 1


SPACE = Space((Layers(("/fc1/Gemm", "/fc2/Gemm"), ("/fc1/Gemm",)), Layers(("/fc1/Gemm",), ())))


def failed(chosen, by: str, is_defect: bool = False) -> Outcome:
    return Candidate(SPACE.pipeline(chosen), 1e-3).failed("this operator\n  found: X", is_defect, by)


def test_a_kind_of_trial_that_cannot_work_is_learned_once():
    kinds = Kinds(SPACE)
    trained = SPACE.complete({"distill": 1, "neurons": 4})
    assert not kinds.include(trained)
    kinds.learn(trained, failed(trained, "distill"))
    assert kinds.include(trained)
    assert kinds.include(SPACE.complete({"distill": 2, "layers": 1}))
    assert not kinds.include(SPACE.complete({"neurons": 4}))
    kinds.learn(trained, failed(trained, "distill"))
    assert len(kinds.notes) == 1
    assert "training of students was not tried again" in kinds.notes[0]


def test_less_may_work_where_more_failed_and_defects_may_be_chance():
    kinds = Kinds(SPACE)
    for neurons in (12, 8):
        chosen = SPACE.complete({"neurons": neurons})
        kinds.learn(chosen, failed(chosen, "remove-neurons"))
    assert kinds.include(SPACE.complete({"neurons": 8}))
    assert not kinds.include(SPACE.complete({"neurons": 7}))
    assert len(kinds.notes) == 1
    pruned = SPACE.complete({"sparsity": 1})
    kinds.learn(pruned, failed(pruned, "prune", is_defect=True))
    assert not kinds.include(pruned)
    kinds.learn(pruned, failed(pruned, "prune", is_defect=True))
    assert kinds.include(pruned)
    # What fails without any of this is no kind.
    plain = SPACE.complete({})
    kinds.learn(plain, failed(plain, "quantize"))
    assert not kinds.include(plain)
