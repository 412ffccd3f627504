"""Steps from what was tried to what is worth trying next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .judge import Judge
from .points import Point
from .space import Parameters, Space, alike, cheaper, exacter, untrained
from .warm_start import CLEAR_ERRORS, MAX_COST_SHARE, Known

MAX_STARTING_POINTS = 3
"""Points from which steps are taken: the best, and those that barely miss the constraints."""
MAX_MISSES_PER_SIZE = 4
"""Networks of one size that miss the constraints so often are not mended any more."""
_SIZE = ("layers", "neurons", "rounding", "distill", "error")
"""What decides the cost of a choice, nearly."""


@dataclass(frozen=True)
class Steps:
    """Single steps, and guesses brought to a size that is worth it.

    Attributes:
        space: What may be chosen.
        judge: What is better.
        known: What was chosen, and what came of it.
        points: These, and presets, which nobody chose.
    """

    space: Space
    judge: Judge
    known: Known
    points: list[Point]

    def from_best(self) -> Iterator[Parameters]:
        """From the best points to something cheaper; or more exact, where only cost is limited."""
        for point in self._best()[:MAX_STARTING_POINTS]:
            step = cheaper if self.judge.goal.names_accuracy else exacter
            yield from step(self.space, self.known.choices[point.number])

    def to_hold(self) -> Iterator[Parameters]:
        """From points that miss a constraint by little, and would be better than the best if they held it."""
        found = self._surest()
        limit = float("inf") if found is None else found.seconds
        missing = [p for p in self.known.points if self.judge.miss(p) or not self.judge.is_sure(p)]
        sizes = Counter(_size(self._choice(p)) for p in missing)
        near = [
            p for p in missing if p.seconds < limit and sizes[_size(self._choice(p))] < MAX_MISSES_PER_SIZE
        ]
        for point in sorted(near, key=self.judge.rank)[:MAX_STARTING_POINTS]:
            missed = {n for n, v in self.judge.violations(point).items() if v > 0}
            step = cheaper if missed - {"max_accuracy_drop", "min_accuracy"} else exacter
            yield from step(self.space, self._choice(point))

    def like_best(self) -> Iterator[Parameters]:
        """Others of the size of the best, where too few were tried to tell how lucky it is."""
        best = self._best()[:1]
        if self.judge.goal.names_accuracy and best and self.judge.shrinkage.is_alone(best[0]):
            yield from alike(self.space, self._choice(best[0]))

    def is_useless(self, chosen: Parameters) -> bool:
        """Whether a student would cost more than the best, as the same choice untrained does."""
        best = self._surest()
        if best is None or not chosen.get("distill") or self.student(chosen) is not None:
            return False
        like = self.known.point(untrained(self.space, chosen))
        return like is not None and like.seconds >= MAX_COST_SHARE * best.seconds

    def resized(self, chosen: Parameters) -> Parameters:
        """A guess that costs too much, at the size of the best, or of a cheaper one that barely misses."""
        best = self._best()[:1]
        limit = MAX_COST_SHARE * best[0].seconds if best else 0.0
        less = [
            p for p in self.known.points if p.seconds < limit and not self.judge.is_short(p, CLEAR_ERRORS)
        ]
        sizes: dict[tuple[object, ...], Parameters] = {}
        for point in (*best, *less):
            sizes.setdefault(_size(self._choice(point)), self._choice(point))
        near = list(sizes.values())[:MAX_STARTING_POINTS] or [chosen]
        size = near[len(self.known.points) % len(near)]
        return self.space.complete({**chosen, **{k: size[k] for k in _SIZE if k in size}})

    def looked_at(self, chosen: Parameters) -> Parameters:
        """The choice to try first: the same untrained, which takes seconds, if that is new."""
        plain = untrained(self.space, chosen)
        if self.student(chosen) is not None or self.known.was_tried(plain):
            return chosen
        return plain

    def student(self, chosen: Mapping[str, object]) -> Point | None:
        """A point with the same student: only another error is tolerated."""
        same = {k: v for k, v in chosen.items() if k != "error"}
        for point, other in self.known.pairs():
            if same == {k: v for k, v in other.items() if k != "error"}:
                return point
        return None

    def _surest(self) -> Point | None:
        """Nothing that costs more than this is worth trying; None where nothing limits accuracy."""
        if not self.judge.goal.names_accuracy:
            return None
        return self.judge.surest(self.points)

    def _best(self) -> list[Point]:
        return [p for p in self.judge.best(self.points) if p.number in self.known.choices]

    def _choice(self, point: Point) -> Parameters:
        return self.known.choices[point.number]


def _size(chosen: Parameters) -> tuple[object, ...]:
    return (chosen.get("layers", 0), chosen.get("neurons", 0), chosen["rounding"])
