"""``tune``: from a model, data and constraints to the best circuit, and the whole trade-off."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from ..circuits import find_backend
from ..cores import usable_cores
from ..input_coercion import DataLike, as_data, check_error, check_ranges, check_seed
from ..ir.errors import UserError
from ..ir.guard import FileLimits
from ..ir.plugins.loading import load_plugin
from ..ir.range_options import DEFAULT_MARGIN, DEFAULT_RANGE_MODE, Margin, RangeMode
from ..ir.results import DEFAULT_RESULTS, SHARED_P_ERROR, Results, check_errors, check_results
from ..ir.state import ModelState
from ..machine import Profile
from ..program import Program
from .assembling import frontier_of
from .clock import GRACE_SECONDS, Clock, OutOfTimeError, bounded
from .compiler import Compiler
from .finals import Final
from .frontier import Frontier, TestReport
from .goal import DEFAULT_ACCURACY_DROP, Goal, check_possible
from .judge import Judge
from .metric import Metric, packed, resolve
from .pricing import Machine
from .probing import probe
from .run import Run
from .state import State, Watch
from .study import Study
from .subject import Subject
from .trying import Task, Tester, to_bytes
from .workers import Dask, Inline, Processes, Workers

DEFAULT_SECONDS = 600.0
"""Time of search and finalists together, where no budget is given."""
DEFAULT_CONFIDENCE = 0.0
"""Standard errors by which points should clear a limit on accuracy: with 0 they hold it at even odds."""
MAX_PROBING_SHARE = 0.05
"""Share of the budget that looking for layers to remove may take."""


@dataclass(frozen=True)
class Tuned:
    """What ``tune`` found.

    Attributes:
        program: The best circuit; None where no point holds the constraints.
        frontier: Every point, the frontier, and what was measured; ``frontier.stopped`` says whether Ctrl-C
            ended the search early.
        nearest: Where no point holds the constraints: the circuit that misses them least.
    """

    program: Program | None
    frontier: Frontier
    nearest: Program | None = None


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
    confidence: float = DEFAULT_CONFIDENCE,
    p_error: float | None = None,
    results: Results = DEFAULT_RESULTS,
    range_mode: RangeMode = DEFAULT_RANGE_MODE,
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

    Where accuracy is limited the best circuit is the fastest that holds all constraints at even odds or
    better, else the most accurate. What a circuit loses is judged by labels and by how often its class is
    another than the float model's, on all inputs that no weight was fitted to. Without any constraint one
    point of accuracy (0.01) may be lost.

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
        seconds: Time of search and finalists together (600 where ``trials`` is not given either). No trial is
            begun that would probably end later, one that does is stopped, and finalists are measured as far
            as there is time. Ctrl-C ends the search too, and returns the best so far.
        jobs: Trials at once, each in a process of its own; None for as many as there are cores.
        dask: Address of a Dask scheduler on whose workers the trials run instead.
        journal: A file that remembers finished trials; a later call with the same arguments goes on there.
        finalists: Points that are compiled and measured.
        encrypted: Samples that each finalist runs on ciphertexts; with 0 latency is only predicted.
        distill: Whether students may be trained (with PyTorch).
        confidence: Standard errors by which points should clear a limit on accuracy. With 0 the fastest that
            holds it at even odds or better is the best; with 1.28 nine in ten should hold it, and where none
            does, those that hold it at even odds are taken.
        p_error: Tolerated error of one lookup; None to search it.
        results: Who may see what is decrypted, as for ``compile``; for ``shared`` p_error is not searched.
        range_mode, range_margin, backend, limits, bind: As for ``compile``.
        machine: A profile of another machine, as ``calibrate-cost`` writes it.
        seed: The same seed gives the same result with ``jobs=1`` and ``trials`` instead of ``seconds``.
        watch: Told where the search stands.
        plugins: Modules or files that trials need; they are loaded in each process.

    Raises:
        UserError: Model, data, constraints or another argument is at fault.
    """
    clock = Clock(seconds if seconds is not None or trials is not None else DEFAULT_SECONDS)
    goal = Goal(max_accuracy_drop, min_accuracy, max_latency, min_throughput, max_key_size)
    if goal.is_empty:
        goal = replace(goal, max_accuracy_drop=DEFAULT_ACCURACY_DROP)
    jobs = usable_cores() if jobs is None else jobs
    _check(trials, seconds, jobs, finalists, encrypted, confidence)
    check_error("p_error", p_error)
    check_results(results)
    check_errors(results, p_error)
    if results == "shared":
        p_error = p_error or SHARED_P_ERROR
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
        data=given.data,
        labels=given.labels,
        metric=packed(scored),
        limits=find_backend(backend).limits(),
        machine=Machine(profile, profile.cores if machine is not None else usable_cores()),
        seed=seed,
        range_mode=range_mode,
        range_margin=range_margin,
        plugins=tuple(plugins),
        results=results,
    )
    told: Watch = watch or _quiet
    told(State([], [], 0, 0.0, None, [], "look at the model"))
    judge = Judge(goal, float_score, scored.higher_is_better, confidence)
    workers: Workers | None = None
    study: Study | None = None
    with tempfile.TemporaryDirectory(prefix="onnx-fhe-") as folder:
        tester = Tester(task, Path(folder))
        space = probe(tester, distill=distill, p_error=p_error, seconds=MAX_PROBING_SHARE * clock.left())
        compiler = Compiler(
            model,
            given.raw_calibration,
            backend,
            limits,
            bind,
            tuple(plugins),
            Path(folder),
            clock,
            results=results,
        )
        try:
            study = Study(
                None if journal is None else Path(journal),
                task.fingerprint(scored.name, space.p_errors, space.assumed),
                goal,
                scored.higher_is_better,
                seed,
            )
            workers = _workers(tester, jobs, dask)
            run = Run(space, study, workers, judge, compiler, tester, finalists, encrypted, trials, told)
            run.run()
        finally:
            if workers is not None:
                workers.close()
            if study is not None:
                study.close()
        chosen = run.finals.best() or run.finals.nearest()
        frontier = frontier_of(
            run,
            model=ModelState.of(given.model).file,
            metric=scored.name,
            samples=given.samples,
            backend=backend,
            seed=seed,
            priced_with=profile.describe(),
            test=None if test is None or chosen is None else _tested(given, test, scored, chosen, run),
        )
    best = run.finals.best()
    return Tuned(
        program=None if best is None else best.program,
        frontier=frontier,
        nearest=chosen.program if best is None and chosen is not None else None,
    )


def _tested(given: Subject, test: DataLike, metric: Metric, chosen: Final, run: Run) -> TestReport | None:
    """What a circuit does on other data, where that does not take much longer than what was given."""
    try:
        with bounded(max(0.0, run.clock.left()) + GRACE_SECONDS):
            return given.report(as_data(test), metric, chosen.program)
    except (OutOfTimeError, KeyboardInterrupt):
        run.notes.append("the test data was not run to its end: the time was over")
        return None


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


def _quiet(state: State) -> None:
    """Nobody watches."""
