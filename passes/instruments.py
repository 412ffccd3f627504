"""What watches a pipeline from outside: verify, dump, time, print (and ``differential``: compare runs)."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import onnx_ir as ir
from onnx_ir.passes import PassBase
from typing_extensions import override

from ..ir.errors import OutputError
from ..ir.level import Level, level_of

__all__ = ["Dump", "Instrument", "Print", "Time", "Verify"]


class Instrument:
    """Base of instruments; every method does nothing by itself.

    With several, the first is outermost: its ``before_pass`` runs first and its ``after_pass`` last.
    """

    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        """A pipeline begins with ``model``."""

    def before_pass(self, pass_: PassBase, model: ir.Model) -> None:
        """``pass_`` is about to run on ``model``."""

    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:
        """``pass_`` returned ``model`` and says whether it changed it."""

    def finish(self, model: ir.Model) -> None:
        """The pipeline ends with ``model``."""


class Verify(Instrument):
    """Checks the rules of the model's level at the start and after each pass.

    Raises:
        ModelError: The model comes with a broken one (loading has checked those of the float level).
        VerificationError: A pass broke one.
    """

    @override
    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        if level_of(model) is not Level.FLOAT:
            from ..ir.verify import verify_given

            verify_given(model)

    @override
    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:
        from ..ir.verify import verify

        verify(model)


class Dump(Instrument):
    """Saves every stage: ``00-input.onnx``, then ``01-normalize.onnx`` and so on.

    Args:
        folder: Where to; made if it is not there.

    Raises:
        OutputError: The folder or a file cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.files: list[Path] = []

    @override
    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                "the folder for the stages cannot be made",
                file=str(self.folder),
                found=error.strerror or str(error),
            ) from error
        self.files = []
        self._save(model, "input")

    @override
    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:
        from .pipeline import pass_name

        self._save(model, pass_name(pass_))

    def _save(self, model: ir.Model, name: str) -> None:
        from ..ir.save import save

        file = self.folder / f"{len(self.files):02}-{name}.onnx"
        save(model, file)
        self.files.append(file)


class Time(Instrument):
    """Measures each pass; give it last, so that the other instruments are not measured too.

    Attributes:
        seconds: (pass, seconds) in the order that they ran.
    """

    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []
        self._began = 0.0

    @override
    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        self.seconds = []

    @override
    def before_pass(self, pass_: PassBase, model: ir.Model) -> None:
        self._began = time.perf_counter()

    @override
    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:
        from .pipeline import pass_name

        self.seconds.append((pass_name(pass_), time.perf_counter() - self._began))

    def to_text(self) -> str:
        """A table of seconds and shares, the total last."""
        total = sum(s for _, s in self.seconds)
        rows = [*self.seconds, ("total", total)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{n:<{width}}  {s:9.3f} s  {s / total if total else 0:6.1%}" for n, s in rows)


class Print(Instrument):
    """Prints the model, annotated, after every pass.

    Args:
        stream: Where to; standard error by default, as standard output may carry ``--json``.
        only_changes: Leave out passes that changed nothing.
    """

    def __init__(self, stream: TextIO | None = None, *, only_changes: bool = False) -> None:
        self.stream = stream
        self.only_changes = only_changes

    @override
    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:
        from ..ir.printer import to_text
        from .pipeline import pass_text

        if modified or not self.only_changes:
            said = "" if modified else " (changed nothing)"
            print(f"// after {pass_text(pass_)}{said}\n{to_text(model)}\n", file=self.stream or sys.stderr)
