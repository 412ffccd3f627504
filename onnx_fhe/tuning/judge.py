"""Which points hold the constraints, and which of two is the better one."""

from __future__ import annotations

from dataclasses import dataclass

from .frontier import Axis, Point, axes_of
from .goal import Goal, better, option_of


@dataclass(frozen=True)
class Judge:
    """What the search compares points with.

    Attributes:
        goal: The constraints.
        float_score: The metric of the float model.
        higher_is_better: Of the metric.
    """

    goal: Goal
    float_score: float
    higher_is_better: bool

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What is traded."""
        return axes_of(self.goal)

    def violations(self, point: Point) -> dict[str, float]:
        """By constraint: how far it is missed; 0 or less is held."""
        return self.goal.violations(
            point.score,
            point.seconds,
            point.samples_per_second,
            point.key_bytes,
            self.float_score,
            self.higher_is_better,
        )

    def miss(self, point: Point) -> float:
        """How far all constraints together are missed; 0 where they are held."""
        return sum(max(0.0, v) for v in self.violations(point).values())

    def rank(self, point: Point) -> tuple[float, ...]:
        """Sort key, the best first: what holds, by the goal; then what misses least."""
        order = better(self.goal, self.higher_is_better)(point.score, point.seconds)
        return (self.miss(point), *order, point.number)

    def best(self, points: list[Point]) -> list[Point]:
        """The points that hold the constraints, the best first."""
        return sorted((p for p in points if self.miss(p) == 0), key=self.rank)

    def unmet(self, point: Point, metric: str) -> tuple[str, ...]:
        """The constraints that a point misses, in words."""
        better = "at least" if self.higher_is_better else "at most"
        sign = 1 if self.higher_is_better else -1
        found = {
            "max_accuracy_drop": (
                f"{metric} {better} {self.float_score - sign * (self.goal.max_accuracy_drop or 0):.4g}",
                f"{point.score:.4g}",
            ),
            "min_accuracy": (f"{metric} {better} {self.goal.min_accuracy or 0:.4g}", f"{point.score:.4g}"),
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
