"""Points made circuits: here, or several at once in the processes that ran the trials."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from warnings import catch_warnings, simplefilter

import onnx_ir as ir

from ..compiling import compile_model
from ..fidelity.figures import FidelityWarning
from ..ir.data import Data
from ..ir.errors import FidelityError, OnnxFheError, UserError
from ..ir.guard import FileLimits
from ..ir.plugins.loading import load_plugin
from ..ir.results import DEFAULT_RESULTS, Results
from ..ir.save import serialize
from ..program import Program
from .clock import Clock, OutOfTimeError, bounded, wait_for
from .points import Point
from .recalling import recalled
from .workers import Processes, Workers

SAFEGUARD_SECONDS = 20.0
"""Time between two circuits that are made in case the search is stopped: they take a worker's time."""


@dataclass(frozen=True)
class Made:
    """A circuit in a file; or why there is none.

    Attributes:
        path: The file.
        sha256: Of the integer model.
        seconds: Time of each step of compiling.
        error: What went wrong.
    """

    path: Path
    sha256: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass
class Compiler:
    """Compiles points, from the model on; passes whose result a trial left are recalled (``recalling``).

    Attributes:
        model: An ONNX file, or what ``load`` returned.
        calibration: As it was given.
        backend, limits, bind: As for ``compile``.
        plugins: To load first.
        folder: Where trials leave what took long to make, and for circuits on their way.
        clock: No circuit is waited for when the time is over.
        results: Who may see what is decrypted.
    """

    model: ir.Model | str | os.PathLike[str]
    calibration: Data
    backend: str
    limits: FileLimits | None
    bind: Mapping[str, int] | None
    plugins: tuple[str, ...]
    folder: Path
    clock: Clock = field(default_factory=Clock)
    _longest: float = 0.0
    _ahead: dict[int, Future[Made]] = field(default_factory=dict)
    _began: float = float("-inf")
    results: Results = DEFAULT_RESULTS

    @property
    def longest(self) -> float:
        """Seconds that making a circuit took at most so far."""
        made = [
            f.result() for f in self._ahead.values() if f.done() and not f.cancelled() and not _is_lost(f)
        ]
        return max([self._longest, *(sum(m.seconds.values()) for m in made)])

    def begin(self, point: Point, workers: Workers) -> None:
        """Start to make a circuit in another process, where there are such, and do not wait for it."""
        if isinstance(workers, Processes) and not isinstance(self.model, ir.Model):
            self._began = time.monotonic()
            self._ahead[point.number] = workers.call(_make, self._elsewhere(), point)

    def safeguard(self, point: Point, workers: Workers) -> None:
        """Make a circuit of the best point so far, so that there is one whenever the search ends.

        The first one at once; later ones no more often than every ``SAFEGUARD_SECONDS`` seconds.
        """
        if point.number not in self._ahead and time.monotonic() - self._began > SAFEGUARD_SECONDS:
            self.begin(point, workers)

    def is_made(self, point: Point) -> bool:
        """Whether a circuit of the point is there, and needs only be loaded."""
        future = self._ahead.get(point.number)
        if future is None or not future.done() or future.cancelled() or future.exception() is not None:
            return False
        return not future.result().error

    def prepare(self, points: list[Point], workers: Workers) -> None:
        """Compile several at once, where there are processes, and wait for them: measuring wants quiet."""
        for point in points:
            future = self._ahead.get(point.number)
            if len(points) > 1 and (future is None or future.cancelled() or _is_lost(future)):
                self.begin(point, workers)
        asked = [self._ahead[p.number] for p in points if p.number in self._ahead]
        wait_for(asked, self.clock.left())

    def compile(self, point: Point, bound: bool = True) -> tuple[Program, str]:
        """The circuit of a point, and the SHA-256 of its integer model.

        Args:
            point: What to compile.
            bound: Whether the clock ends it.

        Raises:
            OnnxFheError: There is none, or the time was over before it was made.
        """
        future = self._ahead.get(point.number)
        if future is None or not future.done() or future.cancelled() or _is_lost(future):
            began = time.monotonic()
            try:
                with bounded(self.clock.left() if bound else float("inf")):
                    program = self.here(point)
            except OutOfTimeError as error:
                raise UserError("the time was over before its circuit was made") from error
            self._longest = max(self._longest, time.monotonic() - began)
            return program, _sha256(program)
        made = future.result()
        if made.error:
            raise UserError(made.error)
        program = Program.load(made.path)
        program.seconds = made.seconds
        return program, made.sha256

    def _elsewhere(self) -> Compiler:
        """What another process needs of it."""
        return Compiler(
            self.model,
            self.calibration,
            self.backend,
            self.limits,
            self.bind,
            self.plugins,
            self.folder,
            results=self.results,
        )

    def here(self, point: Point) -> Program:
        """The circuit of a point, made by this process."""
        # What is wrong with a finalist stands in its manifest.
        with catch_warnings():
            simplefilter("ignore", FidelityWarning)
            return self._compiled(point)

    def _compiled(self, point: Point) -> Program:
        return compile_model(
            self.model,
            self.calibration,
            recalled(point.pipeline, point.p_error, self.folder),
            self.backend,
            p_error=point.p_error,
            range_mode=point.range_mode,
            range_margin=point.range_margin,
            results=self.results,
            seed=point.seed,
            limits=self.limits,
            bind=self.bind,
        )


def _make(compiler: Compiler, point: Point) -> Made:
    """In another process."""
    path = compiler.folder / f"{point.number}.fhe"
    for plugin in compiler.plugins:
        load_plugin(plugin)
    try:
        program = compiler.here(point)
        program.save(path)
    except OnnxFheError as error:
        return Made(path, error=in_words(error))
    return Made(path, _sha256(program), dict(program.seconds))


def in_words(error: OnnxFheError) -> str:
    """Why there is no circuit, in one line."""
    return error.what if not isinstance(error, FidelityError) else f"{error.what} ({error.found})"


def _is_lost(future: Future[Made]) -> bool:
    """Whether the process that made it ended before it was done."""
    return future.done() and not future.cancelled() and future.exception() is not None


def _sha256(program: Program) -> str:
    return hashlib.sha256(serialize(program.integer_model)).hexdigest()
