"""``tune``: from a model, data and constraints to the best circuit, and the whole trade-off."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from ..circuits import find_backend
from ..given import DataLike, as_data, check_error, check_ranges, check_seed
from ..ir.errors import UserError
from ..ir.guard import FileLimits
from ..ir.load import FILE_KEY
from ..machine import Profile
from ..machine.predict import usable_cores
from ..manifest import packages
from ..passes.base import DEFAULT_MARGIN, Margin
from ..passes.plugins import load_plugin
from ..program import Program
from .compiler import Compiler
from .finals import Finals
from .frontier import Frontier, Point, axes_of, non_dominated
from .goal import DROP, Goal, check_possible
from .judge import Judge
from .metric import packed, resolve
from .pricing import Machine
from .probing import probe
from .search import Budget, Search, State, Watch
from .study import Study
from .subject import Subject
from .trying import Task, Tester, to_bytes
from .workers import Dask, Inline, Processes, Workers

SECONDS = 600.0
"""Of search and finalists together, where no budget is given."""
CONFIDENCE = 1.28
"""Standard errors by which points should clear a limit on accuracy, if any do: nine in ten should hold."""
MEASURING, MOST_MEASURING = 8.0, 0.4
"""Seconds that compiling and measuring a finalist takes besides its passes, and the share of the budget that
is kept back for all of them at most."""


@dataclass(frozen=True)
class Tuned:
    """What ``tune`` found.

    Attributes:
        program: The best circuit; None where no point holds the constraints.
        frontier: Every point, the frontier, and what was measured.
    """

    program: Program | None
    frontier: Frontier


def tune(
    model: ir.Model | str | os.PathLike[str],
    calibration: DataLike,
    data: DataLike,
    *,
    max_accuracy_drop: float | None = None,
    min_accuracy: float | None = None,
    max_latency: float | None = None,
    min_throughput: float | None = None,
    max_key_size: float | None = None,
    metric: str = "auto",
    test: DataLike | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    jobs: int | None = None,
    dask: str | None = None,
    journal: str | os.PathLike[str] | None = None,
    finalists: int = 3,
    encrypted: int = 3,
    distill: bool = True,
    confidence: float = CONFIDENCE,
    p_error: float | None = None,
    range_mode: Literal["observed", "sound"] = "observed",
    range_margin: Margin = DEFAULT_MARGIN,
    backend: str = "concrete",
    machine: str | os.PathLike[str] | None = None,
    seed: int = 0,
    watch: Callable[[State], None] | None = None,
    plugins: Sequence[str] = (),
    limits: FileLimits | None = None,
    bind: Mapping[str, int] | None = None,
) -> Tuned:
    """Search widths, rounding, removal, training and tolerated errors for the best circuit.

    Where accuracy is limited the best circuit is the fastest that holds all constraints, else the most
    accurate. Without any constraint one point of accuracy (0.01) may be lost.

    Args:
        model: An ONNX file, or what ``load`` returned.
        calibration: A few hundred typical inputs, as for ``compile``.
        data: The validation samples that the search scores on, with ``labels`` where they are known.
        max_accuracy_drop: How much worse than the float model on ``data`` the metric may be (0.01: a point).
        min_accuracy: Least value of the metric (largest, for ``mean-error``).
        max_latency: Seconds for one sample.
        min_throughput: Samples a second.
        max_key_size: Bytes of evaluation keys, as they are sent.
        metric: ``accuracy``, ``agreement`` (with the float model), ``r2``, ``mean-error``, or
            ``module:function``: a function of (outputs by name, labels), the higher the better. ``auto``
            takes what fits the labels.
        test: Reported on at the end; nothing is chosen by it.
        trials: End after so many finished trials, those of earlier runs in ``journal`` among them.
        seconds: Of search and finalists together (600 where ``trials`` is not given either); no trial is
            begun that would probably end later.
        jobs: Trials at once, each in a process of its own; None for as many as there are cores.
        dask: Address of a Dask scheduler on whose workers the trials run instead.
        journal: A file that remembers finished trials; a later call with the same arguments goes on there.
        finalists: Points that are compiled and measured.
        encrypted: Samples that each finalist runs on ciphertexts; with 0 latency is only predicted.
        distill: Whether students may be trained (with PyTorch).
        confidence: Standard errors (of the difference to the float model on ``data``) by which points should
            clear a limit on accuracy (with 1.28 nine in ten should hold it); where none does, those that
            hold it are taken.
        p_error: Tolerated error of one lookup; None to search it.
        range_mode, range_margin, backend, limits, bind: As for ``compile``.
        machine: A profile of another machine, as ``calibrate-cost`` writes it.
        seed: The same seed gives the same result with ``jobs=1`` and ``trials`` instead of ``seconds``.
        watch: Told where the search stands.
        plugins: Modules or files that trials need; they are loaded in each process.

    Raises:
        UserError: Model, data, constraints or another argument is at fault.
    """
    goal = Goal(max_accuracy_drop, min_accuracy, max_latency, min_throughput, max_key_size)
    if goal.is_empty:
        goal = replace(goal, max_accuracy_drop=DROP)
    jobs = usable_cores() if jobs is None else jobs
    _check(trials, seconds, jobs, finalists, encrypted, confidence)
    check_error("p_error", p_error)
    check_ranges(range_mode, range_margin)
    check_seed(seed)
    for plugin in plugins:
        load_plugin(plugin)
    given = Subject(model, calibration, data, limits, bind)
    floats = given.floats
    scored = resolve(metric, floats)
    float_score = scored.score(floats)
    check_possible(goal, float_score, scored.bounded)
    profile = Profile.load(machine) if machine is not None else Profile.here()
    task = Task(
        model=to_bytes(given.model),
        calibration=given.calibration,
        calibration_labels=given.calibration_labels,
        data=given.data,
        labels=given.labels,
        metric=packed(scored),
        limits=find_backend(backend).limits(),
        machine=Machine(profile, profile.cores if machine is not None else usable_cores()),
        seed=seed,
        range_mode=range_mode,
        range_margin=range_margin,
        plugins=tuple(plugins),
    )
    told: Watch = watch or _quiet
    told(State([], [], 0, 0.0, None, [], "look at the model"))
    budget_seconds = seconds if seconds is not None or trials is not None else SECONDS
    judge = Judge(goal, float_score, scored.higher_is_better, confidence)
    workers: Workers | None = None
    study: Study | None = None
    with tempfile.TemporaryDirectory(prefix="onnx-fhe-") as folder:
        tester = Tester(task, Path(folder))
        space = probe(tester, distill=distill, p_error=p_error)
        compiler = Compiler(model, given.raw_calibration, backend, limits, bind, tuple(plugins), Path(folder))
        try:
            study = Study(
                None if journal is None else Path(journal),
                task.fingerprint(scored.name, space.p_errors, space.assumed),
                goal,
                scored.higher_is_better,
                seed,
            )
            workers = _workers(tester, jobs, dask)
            budget = Budget(trials, budget_seconds, _reserve(budget_seconds, finalists, workers.size))
            search = Search(space, study, workers, judge, budget, told)
            search.run()
            if not search.points:
                raise _nothing(search)
            finals = Finals(compiler, tester, judge, encrypted, lambda what: told(search.state(what)))
            held = judge.preferred(search.points)
            candidates = held or [min(search.points, key=judge.rank)]
            finished, best, notes = finals.run(candidates, finalists, workers)
            if search.exhausted:
                notes.append("the search ended before its time: nothing was left to try that could be better")
        finally:
            if workers is not None:
                workers.close()
            if study is not None:
                study.close()
    chosen = best or finals.nearest(finished)
    measured = {f.point.number: f.point for f in finished}
    points = tuple(
        replace(measured.get(p.number, p), expected=judge.expected(p))
        for p in sorted(search.points, key=lambda p: p.number)
    )
    nearest = None
    unmet: tuple[str, ...] = ()
    if best is None:
        near = chosen.as_measured if chosen is not None else min(search.points, key=judge.rank)
        nearest, unmet = near.number, judge.unmet(near, scored.name)
        if not finished:
            # What none of them could be compiled for, such as circuits that compute something else.
            unmet = (*unmet, *notes[:1])
    axes = axes_of(goal)
    frontier = Frontier(
        model=given.model.metadata_props.get(FILE_KEY, ""),
        metric=scored.name,
        higher_is_better=scored.higher_is_better,
        float_score=float_score,
        samples=given.samples,
        goal=goal,
        confidence=confidence,
        axes=axes,
        points=points,
        failures=tuple(sorted(search.failures, key=lambda f: f.number)),
        front=non_dominated(points, axes, scored.higher_is_better),
        finalists=tuple(measured),
        best=None if best is None else best.point.number,
        nearest=nearest,
        unmet=unmet,
        backend=backend,
        seed=seed,
        priced_with=profile.describe(),
        test=None if test is None or chosen is None else given.report(as_data(test), scored, chosen.program),
        notes=tuple(notes),
        packages=packages(),
    )
    return Tuned(None if best is None else best.program, frontier)


def _reserve(seconds: float | None, finalists: int, workers: int) -> Callable[[list[Point]], float]:
    """Of the budget: what measuring finalists will take, by what their passes took."""

    def found(points: list[Point]) -> float:
        if seconds is None or not points:
            return 0.0
        # One that found its student ready has to be trained again.
        longest = max(p.trial_seconds for p in points)
        count = min(finalists, len(points))
        return min(MOST_MEASURING * seconds, -(-count // workers) * longest + count * MEASURING)

    return found


def _check(
    trials: int | None,
    seconds: float | None,
    jobs: int,
    finalists: int,
    encrypted: int,
    confidence: float,
) -> None:
    wrong = [
        ("--trials", trials, 1),
        ("--seconds", seconds, 0),
        ("--jobs", jobs, 1),
        ("--finalists", finalists, 1),
        ("--encrypted", encrypted, 0),
        ("--confidence", confidence, 0),
    ]
    for name, value, least in wrong:
        if value is not None and not value >= least:
            raise UserError(f"{name} does not make sense", found=f"{value:g}", allowed=f"{least} or more")


def _workers(tester: Tester, jobs: int, dask: str | None) -> Workers:
    if dask is not None:
        return Dask(tester.task, dask)
    return Inline(tester) if jobs == 1 else Processes(tester.task, jobs, tester.folder)


def _nothing(search: Search) -> UserError:
    reasons = [f.reason for f in search.failures]
    return UserError(
        "no pipeline made a circuit of this model",
        found=reasons[0] if reasons else "no trial ended",
        do="see what `onnx-fhe inspect` and `onnx-fhe compile` say of it"
        if reasons
        else "give more --seconds or --trials",
    )


def _quiet(state: State) -> None:
    """Nobody watches."""
