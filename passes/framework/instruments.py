"""What watches a pipeline from outside: verify, dump, time, print (and ``differential``: compare runs)."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassBase
from typing_extensions import override

from ...ir.errors import OutputError, VerificationError
from ...ir.level import Level, level_of

if TYPE_CHECKING:
    from ...ir.finite import Watch
    from ...ir.interface import Interface

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
    """Checks after each pass, ours or of a plug-in, what must hold between passes.

    The rules of the model's level; that inputs and outputs keep their names, order, types and ranks; and that
    constants, and outputs on the data, stay finite numbers where the model that came had such.

    Args:
        data: Arrays by input name, samples on axis 0, of which a few are run; None for none.

    Raises:
        ModelError: The model comes with a broken rule (loading has checked those of the float level), or a
            number stops being finite.
        VerificationError: A pass broke one.
    """

    def __init__(self, data: Mapping[str, np.ndarray] | None = None) -> None:
        self._data = data
        self._watch: Watch | None = None
        self._interface: Interface | None = None
        self._constants: Mapping[str, np.ndarray] = {}

    @override
    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        from ...ir import finite
        from ...ir.interface import Interface

        if level_of(model) is not Level.FLOAT:
            from ...ir.verify import verify_given

            verify_given(model)
        self._interface = Interface.of(model).observed(finite.ranks(model, self._data or {}))
        self._constants = finite.constants(model)
        self._watch = None if self._data is None else finite.Watch(model, self._data)

    @override
    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:
        from ...ir.finite import check_constants
        from ...ir.interface import Interface
        from ...ir.verify import verify

        assert self._interface is not None
        check_constants(model, self._constants)
        verify(model, whole=False)
        after = Interface.of(model)
        if (found := self._interface.difference(after)) is not None:
            raise VerificationError(
                "a pass changed what the model looks like from outside",
                found=found[1],
                allowed=found[0],
                do="a pass keeps names, order, types and ranks of inputs and outputs; report this with the"
                " stages before and after it (--dump-dir)",
            )
        self._interface = after
        if self._watch is not None and modified:
            self._watch.check(model)

    @override
    def finish(self, model: ir.Model) -> None:
        from ...ir.verify import verify

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
        from ...ir.save import save

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
        from ...ir.printer import to_text
        from .pipeline import pass_text

        if modified or not self.only_changes:
            remark = "" if modified else " (changed nothing)"
            print(f"// after {pass_text(pass_)}{remark}\n{to_text(model)}\n", file=self.stream or sys.stderr)
