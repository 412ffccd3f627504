"""Running a pipeline: each pass gets the context, instruments watch from outside, errors name the pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import FunctionalPass, InvariantError, PassBase, PassError, PassResult
from typing_extensions import Self

from ...analysis.ranges import outliers
from ...ir.calibration import Calibration
from ...ir.errors import OnnxFheError, PipelineError
from ...ir.level import Level, level_of
from ...ir.suggest import nearest
from ...ir.threads import one_thread
from ..import_qat.detect import is_foreign
from .base import Context, Pass
from .completion import completed
from .instruments import Instrument
from .pipeline import parse_passes, pass_name, print_passes


class PassFailedError(OnnxFheError):
    """A pass raised something that no pass should: a defect of the pass. ``__cause__`` is what it raised."""


@dataclass
class PipelineResult(PassResult):
    """What a pipeline returns.

    Attributes:
        model: The transformed model, another object than the one given (unless it ran in place).
        modified: Whether any pass changed it.
        context: The context that the passes were given; its ``notes`` are what they want the user to know.
    """

    context: Context


class PassManager(FunctionalPass):
    """A pipeline of passes; itself an onnx_ir pass that leaves the given model as it is.

    Args:
        passes: Passes of onnx-fhe or any onnx_ir passes, in order; another manager stands for its passes.
        instruments: Watch every run of this manager, the first outermost.
        stop_after: Name of a pass after which to stop (its first appearance).

    Raises:
        PipelineError: ``stop_after`` is not in the pipeline.
    """

    def __init__(
        self,
        passes: Iterable[PassBase],
        instruments: Sequence[Instrument] = (),
        *,
        stop_after: str | None = None,
    ) -> None:
        self.passes: tuple[PassBase, ...] = tuple(_flat(passes))
        self.instruments = tuple(instruments)
        if stop_after is not None:
            names = [pass_name(p) for p in self.passes]
            if stop_after not in names:
                raise PipelineError(
                    f"the pipeline has no pass {stop_after!r} to stop after",
                    allowed=", ".join(dict.fromkeys(names)),
                    do=nearest(stop_after, names),
                )
            self.passes = self.passes[: names.index(stop_after) + 1]

    @classmethod
    def parse(
        cls, text: str, instruments: Sequence[Instrument] = (), *, stop_after: str | None = None
    ) -> Self:
        """The manager of a pipeline text.

        Raises:
            PipelineError: The text does not parse, or names what there is not; it points at the place.
        """
        return cls(parse_passes(text), instruments, stop_after=stop_after)

    def completed_for(self, model: ir.Model) -> PassManager:
        """This pipeline, with ``normalize`` and ``import-qat`` in front where ``model`` needs them."""
        return PassManager(completed(self.passes, model), self.instruments)

    def to_text(self) -> str:
        """The pipeline text that parses back to these passes."""
        return print_passes(self.passes)

    def __str__(self) -> str:
        return self.to_text()

    def call(self, model: ir.Model) -> PassResult:
        """Run with an empty context, as any onnx_ir pass."""
        return self.run(model)

    def run(
        self,
        model: ir.Model,
        context: Context | None = None,
        instruments: Sequence[Instrument] = (),
        *,
        in_place: bool = False,
    ) -> PipelineResult:
        """Run the passes on a clone of ``model``.

        Args:
            model: The model; it is not changed, unless ``in_place``.
            context: What the passes may know; cells of its calibration data that lie far from all others are
                clipped first (``analysis.outliers``). Where it has no ``source`` and ``model`` is of the
                float level, ``source`` becomes a clone of ``model``.
            instruments: Watch this run, inside those of the manager.
            in_place: Edit ``model`` itself: it is no longer needed as it is.

        Raises:
            OnnxFheError: What a pass or an instrument raised, with the pass named; anything else that a pass
                raises comes as a ``PassFailedError``.
        """
        context = context or Context()
        if context.source is None and (level_of(model) is Level.FLOAT or is_foreign(model)):
            context = dataclasses.replace(context, source=model.clone())
        if context.calibration is not None:
            known = outliers.clipped(context.calibration, model, context.notes)
            if known is not context.calibration:
                known = Calibration.of(known, labels_of=context.calibration)
                context = dataclasses.replace(context, calibration=known)
        watching = (*self.instruments, *instruments)
        model = model if in_place else model.clone()
        for instrument in watching:
            instrument.start(model, self.passes)
        changed = False
        context.notes.extend(_renamed_options(self.passes))
        for pass_ in self.passes:
            quantizes = isinstance(pass_, Pass) and pass_.produces in (Level.QDQ, Level.INTEGER)
            if quantizes and level_of(model) is Level.FLOAT:
                context = dataclasses.replace(context, quantized_from=model.clone())
            ready = pass_.with_context(context) if isinstance(pass_, Pass) else pass_
            with _located(pass_name(pass_)):
                for instrument in watching:
                    instrument.before_pass(pass_, model)
                result = ready(model)
                model = result.model
                changed = changed or result.modified
                for instrument in reversed(watching):
                    instrument.after_pass(pass_, model, result.modified)
        for instrument in reversed(watching):
            instrument.finish(model)
        return PipelineResult(model, changed, context)


def _renamed_options(passes: Iterable[PassBase]) -> Iterator[str]:
    for pass_ in passes:
        if not isinstance(pass_, Pass):
            continue
        for old, new in pass_.renamed:
            yield (
                f"{pass_.name}: the option {old.replace('_', '-')} is called {new} now; the old name goes"
                " with the next release"
            )


def _flat(passes: Iterable[PassBase]) -> Iterator[PassBase]:
    for pass_ in passes:
        if isinstance(pass_, PassManager):
            yield from pass_.passes
        else:
            yield pass_


@contextmanager
def _located(name: str) -> Iterator[None]:
    """Errors inside name the pass and come without the shells that onnx_ir puts around them."""
    try:
        # What passes compute with may be too large; ``Verify`` says so, and numpy need not.
        with one_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            yield
    except OnnxFheError as error:
        error.located(pass_name=name)
        raise
    except Exception as error:  # noqa: BLE001 - passes of others may raise anything
        cause: BaseException = error
        while not isinstance(cause, OnnxFheError) and cause.__cause__ is not None:
            if not isinstance(cause, (PassError, InvariantError)):
                break
            cause = cause.__cause__
        if isinstance(cause, OnnxFheError):
            cause.located(pass_name=name)
            raise cause from cause.__cause__
        raise PassFailedError(
            f"the pass {name} failed unexpectedly",
            pass_name=name,
            found=f"{type(cause).__name__}: {cause}",
            do="run again with --debug and report this",
        ) from cause
