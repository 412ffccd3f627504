"""Searches on a small network, scored and priced in the clear."""

from __future__ import annotations

import hashlib
import json
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("optuna")

import onnx_fhe
from onnx_fhe import cli, compiling
from onnx_fhe.ir.errors import FidelityError, OutputError, UserError
from onnx_fhe.ir.results import SHARED_P_ERROR
from onnx_fhe.ir.runtime import Session
from onnx_fhe.ir.save import serialize
from onnx_fhe.tuning import probing
from onnx_fhe.tuning import tune as tune_module
from onnx_fhe.tuning.frontier import Frontier, non_dominated
from onnx_fhe.tuning.space import Space
from onnx_fhe.tuning.tune import tune

LOOKED: dict[tuple[object, ...], Space] = {}
# One process: two may finish in either order.
QUICK = {"backend": "reference", "distill": False, "trials": 3, "finalists": 1, "jobs": 1}


def write(folder: Path, outputs: int = 3) -> dict[str, Path]:
    """A network of 5-8-6-``outputs`` and its data; labels are its own answers, some of them wrong."""
    random = np.random.default_rng(0)
    sizes, nodes, weights, value = (5, 8, 6, outputs), [], [], "input"
    for layer, (into, out) in enumerate(pairwise(sizes)):
        weight = random.normal(0, into**-0.5, (out, into)).astype(np.float32)
        bias = random.normal(0, 0.2, out).astype(np.float32)
        weights += [numpy_helper.from_array(weight, f"w{layer}"), numpy_helper.from_array(bias, f"b{layer}")]
        gemm = f"gemm{layer}"
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [gemm], gemm, transB=1))
        value = gemm
        if layer < 2:
            value = f"relu{layer}"
            nodes.append(helper.make_node("Relu", [gemm], [value], value))
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 5])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", outputs])],
        weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    files = {"model": folder / "small.onnx"}
    onnx.save(model, files["model"])
    for name, count in (("calibration", 60), ("data", 80), ("test", 60)):
        array = random.normal(0, 1, (count, 5)).astype(np.float32)
        answers = Session(model).run_batched({"input": array})[value]
        labels = answers.argmax(axis=1) if outputs > 1 else answers[:, 0] + 0.05
        if outputs > 1:
            labels = np.where(random.random(count) < 0.1, 0, labels)
        files[name] = folder / f"{name}.npz"
        np.savez(files[name], input=array, labels=labels)
    return files


@pytest.fixture(autouse=True)
def look_once(monkeypatch):
    """Looking at the same model again finds the same."""

    def look(tester, **options):
        key = (tester.task.model, *options.values())
        if key not in LOOKED:
            LOOKED[key] = probing.probe(tester, **options)
        return LOOKED[key]

    monkeypatch.setattr(tune_module, "probe", look)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, Path]:
    return write(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def tuned(small):
    return run(small, test=small["test"])


def run(files, **options):
    constraints = {"max_accuracy_drop", "min_accuracy", "max_latency", "min_throughput", "max_key_size"}
    goal = {} if constraints & set(options) else {"max_accuracy_drop": 0.1}
    return tune(files["model"], files["calibration"], files["data"], **{**QUICK, **goal, **options})


def trials(tuned):
    return [(p.pipeline, p.p_error, p.score, p.sha256) for p in tuned.frontier.points]


def test_a_search_finds_what_holds_the_constraints(small, tuned):
    frontier = tuned.frontier
    best = frontier.point(frontier.best)
    assert frontier.metric == "accuracy"
    assert best.measured is not None
    assert best.measured.score >= frontier.float_score - 0.1 - 1e-9
    assert best.number in frontier.finalists
    assert len(frontier.points) + len(frontier.failures) == QUICK["trials"]
    assert frontier.front == non_dominated(frontier.points, frontier.axes, True)
    assert frontier.test.samples == 60
    assert tuned.program.manifest.pipeline.startswith("normalize")
    assert Frontier.from_json(frontier.to_json()) == frontier


def test_every_point_is_made_again_from_its_record_bit_for_bit(small, tuned):
    for point in tuned.frontier.points:
        program = onnx_fhe.compile(
            small["model"], small["calibration"], point.pipeline, "reference",
            p_error=point.p_error, range_mode=point.range_mode, range_margin=point.range_margin,
            seed=point.seed, check_samples=0, accept_loss=True,
        )  # fmt: skip
        assert hashlib.sha256(serialize(program.integer_model)).hexdigest() == point.sha256


def test_another_seed_gives_another_search(small, tuned):
    assert trials(run(small, seed=5)) != trials(tuned)


def test_a_trained_point_is_made_again_bit_for_bit(small):
    from onnx_fhe.passes.framework.manager import PassManager
    from onnx_fhe.tuning.trying import Candidate

    tester = _tester(small)
    text = (
        "normalize,remove-layers{count=1},quantize{weights=3 inputs=3},distill{rounding=3 steps=20},"
        "lower-to-integer,fuse-tlu,insert-rounding{bits=3}"
    )
    first = tester.try_out(Candidate(text, 1e-3))
    # The second time everything up to quantize is there already.
    assert tester.try_out(Candidate(text, 1e-3)).found["sha256"] == first.found["sha256"]
    whole = PassManager.parse(text).run(tester.source, tester.task.context(1e-3)).model
    assert hashlib.sha256(serialize(whole)).hexdigest() == first.found["sha256"]


def test_a_student_serves_all_tolerated_errors_and_other_processes(small, tmp_path, monkeypatch):
    from onnx_fhe.passes.distill.distill import Distill
    from onnx_fhe.tuning import stages
    from onnx_fhe.tuning.trying import Candidate, Tester

    monkeypatch.setattr(stages, "MIN_SHARED_SECONDS", 0.0)
    task = _tester(small).task
    text = (
        "normalize,remove-layers{count=1},quantize{weights=3 inputs=3},distill{rounding=3 steps=20},"
        "lower-to-integer,fuse-tlu,insert-rounding{bits=3}"
    )
    other = f"{text},set-p-error{{p-error=0.01}}"
    whole = [Tester(task).try_out(Candidate(t, 1e-3)).found for t in (text, other)]
    Tester(task, tmp_path).try_out(Candidate(text, 1e-3))

    def trained(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(Distill, "run", trained)
    again = Tester(task, tmp_path)
    found = [again.try_out(Candidate(t, 1e-3)).found for t in (text, other)]
    assert [f["sha256"] for f in found] == [f["sha256"] for f in whole]
    assert [f["score"] for f in found] == [f["score"] for f in whole]
    assert found[0]["sha256"] != found[1]["sha256"]
    # What passes are told is another student's.
    assert not again.try_out(Candidate(text, 1e-2)).found


def test_what_cannot_be_written_is_made_again(small, tmp_path, monkeypatch):
    from onnx_fhe.tuning import stages
    from onnx_fhe.tuning.trying import Candidate, Tester

    monkeypatch.setattr(stages, "MIN_SHARED_SECONDS", 0.0)
    task = _tester(small).task
    candidate = Candidate("normalize,quantize{weights=3 inputs=3},lower-to-integer,fuse-tlu", 1e-3)
    nowhere = Tester(task, tmp_path / "not there").try_out(candidate)
    assert nowhere.found["sha256"] == Tester(task).try_out(candidate).found["sha256"]


def test_the_end_of_a_budget_is_kept_for_the_finalists(tmp_path):
    from dataclasses import replace

    from onnx_fhe.tuning.clock import Clock
    from onnx_fhe.tuning.compiler import Compiler
    from onnx_fhe.tuning.run import FINALIST_SECONDS, reserve

    def kept(seconds, point, workers=2, retrained=False, longest=0.0):
        clock = Clock(seconds)
        compiler = Compiler("m.onnx", None, "reference", None, None, (), tmp_path, clock, longest)
        return reserve(compiler, 3, 3, workers, retrained)([point] * 5 if point else [])

    point = replace(_point(), trial_seconds=20.0)
    assert kept(None, point) == 0
    assert kept(600.0, None) == 0
    # What trials left is used again, but for those of a cluster: two rounds of 20 s on two workers.
    assert kept(600.0, point) == 3 * FINALIST_SECONDS
    assert kept(600.0, point, retrained=True) == 2 * 20 + 3 * FINALIST_SECONDS
    assert kept(600.0, point, longest=5.0) == 2 * 5 + 3 * FINALIST_SECONDS
    assert kept(600.0, replace(point, seconds=6.0)) == 3 * 4 * 6
    assert kept(100.0, point, workers=1, retrained=True) == 40


def test_a_search_that_has_nothing_left_to_try_says_so(small, tuned, monkeypatch):
    from onnx_fhe.tuning.search import Search

    assert not any("before its time" in n for n in tuned.frontier.notes)
    start, calls = Search._start, iter(range(10))
    monkeypatch.setattr(Search, "_start", lambda self: next(calls) < 2 and start(self))
    found = run(small, trials=50)
    assert any("before its time" in n for n in found.frontier.notes)
    assert len(found.frontier.points) == 2


def _point():
    from onnx_fhe.tuning.points import Point

    return Point(0, "normalize", 1e-3, 0, "observed", 0.2, 0.9, None, 1.0, 1.0, 1, 1, 1.0, 0, "0")


def _tester(files):
    """What a search tries pipelines with."""

    class Enough(Exception):  # noqa: N818
        pass

    found = []

    def stop(tester, **options):
        found.append(tester)
        raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_module, "probe", stop)
        with pytest.raises(Enough):
            run(files)
    return found[0]


def test_stopped_and_started_again_it_goes_on(small, tmp_path, tuned):
    journal = tmp_path / "search.journal"

    class Killed(BaseException):
        pass

    def kill_in_the_second(state):
        if len(state.points) == 1 and state.running:
            raise Killed

    with pytest.raises(Killed):
        run(small, journal=journal, watch=kill_in_the_second)
    # A line that was being written, and the lock of a process that is no more.
    with journal.open("ab") as file:
        file.write(b'{"op_code": 8, "wor')
    Path(f"{journal}.lock").symlink_to(journal)
    tried = []
    again = run(small, journal=journal, watch=lambda s: tried.append(len(s.points)))
    assert tried[1] == 1
    # The one that ran is tried again.
    assert trials(again)[:2] == trials(tuned)[:2]
    assert len(again.frontier.points) + len(again.frontier.failures) == QUICK["trials"]
    nothing_new = run(small, journal=journal)
    assert trials(nothing_new) == trials(again)


def test_other_constraints_use_what_was_tried(small, tmp_path):
    journal = tmp_path / "search.journal"
    first = run(small, journal=journal, trials=2)
    count = []
    second = run(small, journal=journal, trials=2, max_latency=100.0, watch=lambda s: count.append(s.running))
    assert sorted(trials(second)) == sorted(trials(first))
    assert not any(count)


def test_a_journal_of_another_search_is_refused(small, tmp_path):
    journal = tmp_path / "search.journal"
    run(small, journal=journal, trials=1)
    with pytest.raises(UserError, match="another model"):
        run(small, journal=journal, trials=1, seed=1)
    damaged = tmp_path / "damaged.journal"
    damaged.write_text("no journal\n")
    with pytest.raises(UserError, match="damaged"):
        run(small, journal=damaged)
    with pytest.raises(OutputError):
        run(small, journal=tmp_path / "none" / "x.journal")


def test_a_journal_is_searched_by_one_process(small, tmp_path):
    journal = tmp_path / "search.journal"
    said = []

    def second(state):
        if state.running and not said:
            with pytest.raises(UserError) as error:
                run(small, journal=journal, trials=1)
            said.append(str(error.value))

    run(small, journal=journal, trials=1, watch=second)
    assert "another process" in said[0]


@pytest.fixture
def any_loss(monkeypatch):
    """A few neurons of a network of random weights are not much of a network; here that is no matter."""
    monkeypatch.setattr(compiling, "require_faithful", lambda *_, **__: None)


def test_a_circuit_that_computes_something_else_is_not_returned(small, monkeypatch):
    def refuse(found, told, *, accepted):
        assert not accepted
        raise FidelityError("the circuit computes something else", found=found.headline)

    monkeypatch.setattr(compiling, "require_faithful", refuse)
    found = run(small, trials=2)
    assert found.program is None
    assert "computes something else (on 60 calibration samples" in found.frontier.unmet[-1]
    assert found.frontier.chosen.number == found.frontier.nearest


def test_what_cannot_be_met_is_said_with_the_nearest_point(small, any_loss):
    found = run(small, max_latency=1e-6, trials=2)
    assert found.program is None
    assert found.frontier.best is None
    near = found.frontier.chosen
    assert near is not None
    assert near.measured is not None
    assert near.seconds == min(p.seconds for p in found.frontier.points)
    assert found.frontier.unmet[0].startswith("--max-latency: at most 1e-06 s, found ")


def test_latency_alone_gives_the_most_accurate(small, any_loss):
    found = run(small, max_latency=100.0, trials=2).frontier
    assert found.point(found.best).score == max(p.score for p in found.points)


def test_throughput_and_keys_are_axes_where_they_are_limited(small):
    found = run(small, min_throughput=1e-3, max_key_size=1e12, trials=2).frontier
    assert found.axes == ("score", "seconds", "samples_per_second", "key_bytes")
    assert found.best is not None


def test_regressors_and_functions_of_the_user(tmp_path, monkeypatch):
    files = write(tmp_path, outputs=1)
    found = run(files, max_accuracy_drop=0.05, trials=1).frontier
    assert found.metric == "r2"
    assert found.float_score < 1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def close(outputs, labels):\n"
        "    return float((np.abs(next(iter(outputs.values()))[:, 0] - labels) < 0.2).mean())\n"
    )
    found = run(files, metric="mine.py:close", max_accuracy_drop=0.5, trials=1).frontier
    assert found.metric == "mine.py:close"
    assert found.float_score == 1.0


def test_the_same_seed_gives_the_same_search_whatever_the_test_file(small, tmp_path, tuned):
    other = tmp_path / "other.npz"
    np.savez(other, input=np.zeros((4, 5), np.float32), labels=np.zeros(4, np.int64))
    found = run(small, test=other)
    assert trials(found) == trials(tuned)
    assert found.frontier.best == tuned.frontier.best
    assert found.frontier.test != tuned.frontier.test


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 0}, "--trials"),
        ({"seconds": -1.0}, "--seconds"),
        ({"jobs": 0}, "--jobs"),
        ({"min_accuracy": 95.0}, "--min-accuracy"),
        ({"max_accuracy_drop": 1.5}, "--max-accuracy-drop"),
        ({"max_accuracy_drop": -0.5}, "--max-accuracy-drop"),
        ({"metric": "f1"}, "no metric 'f1'"),
        ({"p_error": 2.0}, "p_error"),
        ({"backend": "none"}, "none"),
    ],
)
def test_requests_that_make_no_sense_are_refused(small, options, said):
    with pytest.raises(UserError) as error:
        run(small, **options)
    assert said in str(error.value)


def test_a_model_of_the_integer_level_is_refused(small, tuned, tmp_path):
    path = tmp_path / "integer.onnx"
    path.write_bytes(serialize(tuned.program.integer_model))
    with pytest.raises(UserError, match="nothing to tune"):
        run({**small, "model": path})


def command(small, out, *options):
    arguments = [
        "tune", small["model"], "--calibration", small["calibration"], "--data", small["data"], "-o", out,
        "--backend", "reference", "--max-accuracy-drop", "0.1", "--no-distill",
        "--trials", "1", "--finalists", "1", *options,
    ]  # fmt: skip
    with pytest.raises(SystemExit) as status:
        cli.main([str(a) for a in arguments])
    return status.value.code


def test_the_command_writes_the_circuit_and_all_trials(small, tmp_path, capsys):
    out = tmp_path / "best.fhe"
    assert command(small, out, "--json", "--test", small["test"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["file"] == str(out)
    assert found["test"]["samples"] == 60
    assert said.err == ""
    frontier = Frontier.from_json((tmp_path / "best.tune.json").read_bytes())
    assert frontier.best == found["best"]["number"]
    assert onnx_fhe.Program.load(out).manifest.pipeline
    assert command(small, out) == 0
    assert "trial" in capsys.readouterr().out


def test_the_command_says_what_cannot_be_met_and_writes_no_circuit(small, tmp_path, capsys):
    out = tmp_path / "best.fhe"
    assert command(small, out, "--max-latency", "1e-6") == 1
    said = capsys.readouterr()
    assert "no circuit was found" in said.err
    assert "compile the nearest" in said.err
    assert not out.exists()
    assert (tmp_path / "best.tune.json").exists()


def test_where_a_search_stands_can_be_drawn(tuned):
    from rich.console import Console

    from onnx_fhe.cli.frontier import drawn
    from onnx_fhe.tuning.state import State

    points = list(tuned.frontier.points)
    console = Console(width=100, file=StringIO())
    console.print(drawn(State(points, [], 1, 3.0, tuned.frontier.chosen, points)))
    text = console.file.getvalue()
    assert f"best so far: trial {tuned.frontier.best}" in text
    assert f"{points[0].score:.4f}" in text


def test_a_search_for_results_that_may_be_shared_rounds_exactly_and_searches_no_error(small):
    found = run(small, max_accuracy_drop=1.0, results="shared")
    program = found.program or found.nearest
    assert program.manifest.results == "shared"
    assert program.manifest.p_error == SHARED_P_ERROR
    assert program.manifest.rounding in ("none", "exact")
    assert {p.p_error for p in found.frontier.points} == {SHARED_P_ERROR}
