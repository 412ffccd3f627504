"""Cross-fitting: what trained a student is judged on every input, each by a network that never saw it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..ir.errors import OnnxFheError
from ..passes.compress.shrink.folds import FOLDS, crossed
from ..passes.framework.manager import PassManager
from .clock import Clock, OutOfTimeError, bounded
from .comparing import MAX_COMPARED_INPUTS
from .points import Paired, Point
from .trying import Tester

MAX_CROSSED_SHARE = 0.1
"""Share of the budget that is kept back for cross-fitting at most."""


@dataclass
class Crossing:
    """Judges finalists on all calibration inputs where their passes fitted weights to some of them.

    The calibration inputs are split into parts. The passes know nothing of a part when they make the network
    that it is asked of, so all parts together say how often such a network gives another class.

    Attributes:
        tester: Knows the network and its inputs.
        clock: Where time is short, the inputs that were held back in the trial are all that judges.
        notes: Says of each finalist which of the two it was.
    """

    tester: Tester
    clock: Clock
    notes: list[str] = field(default_factory=list)
    _asked: set[int] = field(default_factory=set)

    def is_due(self, point: Point) -> bool:
        """Whether more inputs could judge a point than those that judged it, and nobody tried that yet."""
        return (
            point.number not in self._asked
            and point.paired is not None
            and point.paired.calibration < min(self.tester.comparer.total, MAX_COMPARED_INPUTS)
        )

    def judged(self, point: Point) -> Point:
        """The point with its agreement on all inputs; as it is, with a note, where that cannot be had."""
        assert point.paired is not None
        self._asked.add(point.number)
        if self.clock.left() < FOLDS * point.trial_seconds:
            return self._held_back(point, "there was no time to make it again for each part of all inputs")
        try:
            with bounded(self.clock.left()):
                paired = self._paired(point, point.paired)
        except OutOfTimeError:
            return self._held_back(point, "the time was over before it was made for each part of all inputs")
        except OnnxFheError as error:
            return self._held_back(point, f"without a part of the inputs it cannot be made: {error.what}")
        self.notes.append(
            f"trial {point.number} is judged by all {paired.calibration} calibration inputs, cross-fitted in"
            f" {FOLDS} parts: {paired.differing:.0f} have another class"
        )
        return replace(point, paired=paired)

    def _held_back(self, point: Point, why: str) -> Point:
        assert point.paired is not None
        self.notes.append(
            f"trial {point.number} is judged by the {point.paired.calibration} calibration inputs that no"
            f" weight was fitted to: {why}"
        )
        return point

    def _paired(self, point: Point, known: Paired) -> Paired:
        source, comparer = self.tester.source, self.tester.comparer
        context = replace(self.tester.task.context(point.p_error), source=source.clone()).with_notes([])
        asked, differing, foreseen = 0, 0.0, 0.0
        for fold in crossed(context, comparer.total):
            held = fold.held[: MAX_COMPARED_INPUTS // FOLDS]
            made = PassManager.parse(point.pipeline).run(source.clone(), fold.fitting).model
            found, lost = comparer.differing(made, point.p_error, held)
            asked, differing, foreseen = asked + len(held), differing + found, foreseen + (lost or 0.0)
        return replace(
            known,
            calibration=asked,
            differing=differing,
            foreseen=None if known.foreseen is None else foreseen,
            is_crossed=True,
        )


def reserved(points: list[Point], given: float) -> float:
    """Seconds of the budget that cross-fitting the best of these takes; 0 where it would take too many.

    Args:
        points: The best so far.
        given: Seconds of the whole budget.
    """
    trained = [p.trial_seconds for p in points if p.parameters.get("distill")]
    needed = FOLDS * max(trained, default=0.0)
    return needed if needed <= MAX_CROSSED_SHARE * given else 0.0
