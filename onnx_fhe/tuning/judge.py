"""Which points hold the constraints, and which of two is the better one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import NormalDist

from .agreeing import Agreeing
from .frontier import Axis, axes_of
from .goal import Goal, better, option_of
from .points import Point
from .shrinkage import ScoreShrinkage

CAUTIOUS_ODDS = 0.9
"""Probability with which the circuit holds a limit on accuracy that is shown to the cautious."""
TIME_RATIO = 1.15
"""Factor by which predicted and measured times differ without a reason: what is faster by less is not
faster."""


@dataclass(frozen=True)
class Judge:
    """What the search compares points with.

    Attributes:
        goal: The constraints.
        float_score: The metric of the float model.
        higher_is_better: Whether a higher score is the better one.
        confidence: Standard errors by which points should clear a limit on accuracy, if any do; with 0 they
            hold it at even odds or better.
        shrinkage: How far the scores of the best of many trials are drawn towards those like it.
        agreeing: What they lose, by agreement with the float network.
    """

    goal: Goal
    float_score: float
    higher_is_better: bool
    confidence: float = 0.0
    shrinkage: ScoreShrinkage = field(default_factory=ScoreShrinkage, compare=False)
    agreeing: Agreeing = field(default_factory=Agreeing, compare=False)

    def learn(self, points: list[Point]) -> None:
        """Look at all points again."""
        self.agreeing.learn(points)
        self.shrinkage.learn([self._estimated(p) for p in points])

    def _estimated(self, point: Point) -> Point:
        """A point with the score, and its error, that agreement gives, where classes were compared."""
        loss = self.agreeing.loss(point)
        if loss is None:
            return point
        score, error = self.float_score - loss.value, loss.error
        measured = point.measured
        if measured is not None and measured.behind > (point.score_error or 0.0):
            # The circuit does worse than the model of its errors predicted.
            score -= measured.behind
        return replace(point, score=score, score_error=error)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What is traded."""
        return axes_of(self.goal)

    def violations(self, point: Point) -> dict[str, float]:
        """By constraint: how far it is missed; 0 or less is held."""
        return self._violations(point, self.expected(point))

    def _violations(self, point: Point, score: float) -> dict[str, float]:
        return self.goal.violations(
            score,
            point.seconds,
            point.samples_per_second,
            point.key_bytes,
            self.float_score,
            self.higher_is_better,
        )

    def miss(self, point: Point) -> float:
        """How far all constraints together are missed; 0 where they are held."""
        return sum(max(0.0, v) for v in self.violations(point).values())

    def expected(self, point: Point) -> float:
        """The score that other samples will probably give: none is better than what it imitates."""
        known = self._estimated(point)
        found = known.score + self.shrinkage.correction(known).shift
        # A network that was made to answer like another and answers better than it was lucky.
        return min(found, self.float_score) if self.higher_is_better else max(found, self.float_score)

    def error(self, point: Point) -> float | None:
        """Standard error of ``expected``; None where the metric has none."""
        return self.shrinkage.correction(self._estimated(point)).error

    def _bound(self, point: Point, errors: float) -> float:
        """The score that is so many standard errors worse than the expected one."""
        sign = 1.0 if self.higher_is_better else -1.0
        return self.expected(point) - sign * errors * (self.error(point) or 0.0)

    def holds(self, point: Point) -> float | None:
        """The probability that a point holds the limits on accuracy on other samples, were errors normal.

        None where accuracy is not limited, or the metric has no standard error.
        """
        error, found = self.error(point), self.violations(point)
        missed = [found[name] for name in ("max_accuracy_drop", "min_accuracy") if name in found]
        if error is None or not missed:
            return None
        away = max(missed) * max(abs(self.float_score), 1e-9)
        return NormalDist().cdf(-away / error) if error else float(away <= 0)

    def cautious(self, points: list[Point]) -> Point | None:
        """The fastest that holds all constraints, those on accuracy with probability ``CAUTIOUS_ODDS``."""
        return next((p for p in self.best(points) if (self.holds(p) or 0.0) >= CAUTIOUS_ODDS), None)

    def is_sure(self, point: Point) -> bool:
        """Whether a point clears the limits on accuracy by as many standard errors as were asked for."""
        return not self._misses_accuracy(point, self.confidence)

    def is_short(self, point: Point, errors: float) -> bool:
        """Whether a point misses a limit on accuracy by more than so many standard errors."""
        return self._misses_accuracy(point, -errors)

    def _misses_accuracy(self, point: Point, errors: float) -> bool:
        found = self._violations(point, self._bound(point, errors))
        return any(found.get(name, 0.0) > 0 for name in ("max_accuracy_drop", "min_accuracy"))

    def rank(self, point: Point) -> tuple[float, ...]:
        """Sort key, the best first: what holds, surely before barely, by the goal; then what misses least."""
        order = better(self.goal, self.higher_is_better)(point.score, point.seconds)
        return (self.miss(point), not self.is_sure(point), *order, point.number)

    def best(self, points: list[Point]) -> list[Point]:
        """The points that hold the constraints, the best first."""
        return sorted((p for p in points if self.miss(p) == 0), key=self.rank)

    def preferred(self, points: list[Point]) -> list[Point]:
        """``best``; but of points as fast as the fastest, as far as times are known, the most accurate first.

        Where accuracy is not limited it is what ``best`` sorts by already.
        """
        found = self.best(points)
        if not found or not self.goal.names_accuracy:
            return found
        limit = TIME_RATIO * found[0].seconds
        alike = [p for p in found if p.seconds <= limit and self.is_sure(p) == self.is_sure(found[0])]
        sign = -1.0 if self.higher_is_better else 1.0
        alike.sort(key=lambda p: (sign * self._bound(p, self.confidence), *self.rank(p)))
        return [*alike, *(p for p in found if p not in alike)]

    def surest(self, points: list[Point]) -> Point | None:
        """The best of those that surely hold the constraints: nothing that costs more is worth trying."""
        return next((p for p in self.best(points)[:1] if self.is_sure(p)), None)

    def unmet(self, point: Point, metric: str) -> tuple[str, ...]:
        """The constraints that a point misses, in words."""
        better = "at least" if self.higher_is_better else "at most"
        sign = 1 if self.higher_is_better else -1
        found = {
            "max_accuracy_drop": (
                f"{metric} {better} {self.float_score - sign * (self.goal.max_accuracy_drop or 0):.4g}",
                f"{self.expected(point):.4g}",
            ),
            "min_accuracy": (
                f"{metric} {better} {self.goal.min_accuracy or 0:.4g}",
                f"{self.expected(point):.4g}",
            ),
            "max_latency": (f"at most {self.goal.max_latency or 0:.3g} s", f"{point.seconds:.3g} s"),
            "min_throughput": (
                f"at least {self.goal.min_throughput or 0:.3g} samples a second",
                f"{point.samples_per_second:.3g}",
            ),
            "max_key_size": (
                f"keys of at most {(self.goal.max_key_size or 0) / 1e6:.3g} MB",
                f"{point.key_bytes / 1e6:.3g} MB",
            ),
        }
        return tuple(
            f"{option_of(name)}: {found[name][0]}, found {found[name][1]}"
            for name, missed in self.violations(point).items()
            if missed > 0
        )
