"""Which step lost most: the network after each of them, on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassBase
from typing_extensions import override

from ..ir.batch_runner import Arrays
from ..ir.errors import OnnxFheError
from ..ir.level import Level, level_of
from ..ir.runtime import Session
from ..passes.framework.instruments import Instrument
from ..passes.framework.pipeline import pass_name
from .figures import Step, StepFigures
from .measure import Comparison, compare
from .verdict import left_of, worst


class Steps(Instrument):
    """Keeps the model as it was before it was quantized, and before it was rounded.

    Attributes:
        kept: Models by the step that made them.
    """

    def __init__(self) -> None:
        self.kept: dict[Step, ir.Model] = {}

    @override
    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        self.kept = {}

    @override
    def before_pass(self, pass_: PassBase, model: ir.Model) -> None:
        # A clone shares its weights and tables with the model.
        if pass_name(pass_) == "quantize" and level_of(model) is Level.FLOAT:
            self.kept["removed"] = model.clone()
        elif pass_name(pass_) == "insert-rounding" and "quantized" not in self.kept:
            self.kept["quantized"] = model.clone()


def steps_of(
    kept: Mapping[Step, ir.Model],
    model: ir.Model,
    data: Mapping[str, np.ndarray],
    wanted: Arrays,
    final: Comparison,
    overflows: int,
) -> tuple[Step, tuple[StepFigures, ...]]:
    """The step that lost most, and what was left after each.

    Args:
        kept: What ``Steps`` kept.
        model: The integer-level model.
        data: Samples by input name.
        wanted: The network's outputs on them.
        final: What the circuit was found to do on them.
        overflows: Samples in which a value leaves its range: a circuit wraps there, the model does not.
    """
    last: Step = "rounded" if "quantized" in kept else "quantized"
    stages: dict[Step, ir.Model] = {**kept, last: model}
    order: tuple[Step, ...] = ("removed", "quantized", "rounded")
    found: list[tuple[Step, Comparison]] = []
    for step in order:
        # A stage that does not run alone says nothing; the circuit has been compared already.
        with suppress(OnnxFheError):
            if step in stages:
                results = Session(stages[step], list(wanted)).run_batched(data)
                found.append((step, compare(wanted, results, model)))
    samples = len(next(iter(data.values())))
    found.append(("ranges" if 20 * overflows > samples else "noise", final))
    figures = tuple(_figures(step, comparison) for step, comparison in found)
    before = [1.0, *(_left(f) for f in figures)]
    lost = [a - b for a, b in pairwise(before)]
    most = int(np.argmax(lost))
    return (figures[most].step if lost[most] > 0 else ""), figures


def _figures(step: Step, found: Comparison) -> StepFigures:
    least = worst(found.outputs)
    value = None if least is None else left_of(least)
    agreement = found.classes.agreement if found.classes is not None and found.classes.certain else None
    return StepFigures(step, value, agreement)


def _left(found: StepFigures) -> float:
    """What is left, from 0 to 1: of the worst output, or of the predictions."""
    return min(max(0.0, x) for x in (found.worst_r2, found.agreement, 1.0) if x is not None)
