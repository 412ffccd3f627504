"""Points made circuits: here, or several at once in the processes that ran the trials."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from warnings import catch_warnings, simplefilter

import onnx_ir as ir

from ..compiling import compile_model
from ..fidelity.figures import FidelityWarning
from ..ir.data import Data
from ..ir.errors import OnnxFheError, UserError
from ..ir.guard import FileLimits
from ..ir.save import serialize
from ..passes.plugins import load_plugin
from ..program import Program
from .frontier import Point
from .workers import Processes, Workers


@dataclass(frozen=True)
class Made:
    """A circuit in a file; or why there is none.

    Attributes:
        path: The file.
        sha256: Of the integer model.
        seconds: Of each step of compiling.
        error: What went wrong.
    """

    path: Path
    sha256: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass
class Compiler:
    """Compiles points, from the model on: nothing that a trial left is used.

    Attributes:
        model: An ONNX file, or what ``load`` returned.
        calibration: As it was given.
        backend, limits, bind: As for ``compile``.
        plugins: To load first.
        folder: For circuits on their way.
    """

    model: ir.Model | str | os.PathLike[str]
    calibration: Data
    backend: str
    limits: FileLimits | None
    bind: Mapping[str, int] | None
    plugins: tuple[str, ...]
    folder: Path
    _ahead: dict[int, Future[Made]] = field(default_factory=dict)

    def prepare(self, points: list[Point], workers: Workers) -> None:
        """Compile several at once, where there are processes, and wait for them: measuring wants quiet."""
        if len(points) < 2 or not isinstance(workers, Processes) or isinstance(self.model, ir.Model):
            return
        there = Compiler(
            self.model, self.calibration, self.backend, self.limits, self.bind, self.plugins, self.folder
        )
        for point in points:
            self._ahead[point.number] = workers.call(_make, there, point)
        for future in self._ahead.values():
            future.exception()

    def compile(self, point: Point) -> tuple[Program, str]:
        """The circuit of a point, and the SHA-256 of its integer model.

        Raises:
            OnnxFheError: There is none.
        """
        future = self._ahead.pop(point.number, None)
        if future is None or future.exception() is not None:
            program = self.here(point)
            return program, _sha256(program)
        made = future.result()
        if made.error:
            raise UserError(made.error)
        program = Program.load(made.path)
        program.seconds = made.seconds
        return program, made.sha256

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
            point.pipeline,
            self.backend,
            p_error=point.p_error,
            range_mode=point.range_mode,
            range_margin=point.range_margin,
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
        return Made(path, error=error.what)
    return Made(path, _sha256(program), dict(program.seconds))


def _sha256(program: Program) -> str:
    return hashlib.sha256(serialize(program.integer_model)).hexdigest()
