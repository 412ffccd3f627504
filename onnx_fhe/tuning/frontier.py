"""What a search found: every point, the frontier, the finalists and the best. The JSON beside the circuit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from .. import versioned_json
from .goal import Goal
from .points import Failure, Point

FORMAT = 1
"""Version of the JSON; a newer one is refused."""

Axis = Literal["score", "seconds", "samples_per_second", "key_bytes"]


@dataclass(frozen=True)
class TestReport:
    """The best circuit on data that the search never saw.

    Attributes:
        file: Base name.
        samples: Their number.
        float_score: The metric of the float model.
        score: The metric of the circuit, simulated.
        score_error: Standard error of their difference; None where the metric has none.
    """

    __test__ = False  # not a test of pytest's

    file: str
    samples: int
    float_score: float
    score: float
    score_error: float | None


@dataclass(frozen=True)
class Frontier:
    """The result of a search.

    Attributes:
        model: Base name of the model's file, where known.
        metric: Name of the metric.
        higher_is_better: Whether a higher score is the better one.
        float_score: The metric of the float model on the validation data.
        samples: Validation samples.
        goal: The constraints.
        axes: What is traded on the frontier.
        points: All trials that gave a circuit.
        failures: Those that did not.
        front: Numbers of the points that no other dominates, from cheap to expensive.
        finalists: Numbers of those that were compiled and measured, in that order.
        best: Number of the chosen one; None where no point holds the constraints.
        nearest: Where none does: the point that misses them least.
        unmet: The constraints that it misses, in words.
        cautious: Number of the fastest finalist that holds the limits on accuracy with 90 %; None where there
            is none but the best.
        confidence: Standard errors by which limits on accuracy should be cleared.
        stopped: Why it ended early; empty where it did not.
        backend: Name of the backend.
        seed: Seed of the search.
        priced_with: The machine profile behind ``seconds``.
        test: The best on the test data, where some was given.
        notes: What the user should be told.
        packages: Versions of what made it.
        format: Version of this description.
    """

    model: str
    metric: str
    higher_is_better: bool
    float_score: float
    samples: int
    goal: Goal
    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    failures: tuple[Failure, ...] = ()
    front: tuple[int, ...] = ()
    finalists: tuple[int, ...] = ()
    best: int | None = None
    nearest: int | None = None
    unmet: tuple[str, ...] = ()
    cautious: int | None = None
    stopped: str = ""
    confidence: float = 0.0
    backend: str = "concrete"
    seed: int = 0
    priced_with: str = ""
    test: TestReport | None = None
    notes: tuple[str, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def point(self, number: int) -> Point:
        """The point of a trial.

        Raises:
            KeyError: That trial gave none.
        """
        for point in self.points:
            if point.number == number:
                return point
        raise KeyError(number)

    @property
    def front_points(self) -> tuple[Point, ...]:
        """The points that no other dominates, from cheap to expensive."""
        return tuple(self.point(n) for n in self.front)

    @property
    def chosen(self) -> Point | None:
        """The best point, or else the nearest."""
        number = self.best if self.best is not None else self.nearest
        return None if number is None else self.point(number)

    @property
    def why(self) -> str:
        """Why the best point is none of the frontier of scores as they are; empty where it is one."""
        if self.best is None or self.best in self.front:
            return ""
        sure = f" (--confidence {self.confidence:g})" if self.confidence else ""
        return f"points of the frontier score as well or better here for less, but hold less surely{sure}"

    def to_json(self) -> bytes:
        """The content of the JSON file."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> Frontier:
        """Read what ``to_json`` wrote.

        Raises:
            ArtifactError: It is damaged, or of a newer format.
        """
        damaged = "this is no result of onnx-fhe tune, or it is damaged"
        newer = "this result was written by a newer onnx-fhe"
        versioned_json.parse(content, FORMAT, damaged=damaged, newer=newer, do="update onnx-fhe")
        return versioned_json.validate(content, TypeAdapter(cls), damaged=damaged)


def axes_of(goal: Goal) -> tuple[Axis, ...]:
    """What is traded: the metric against latency, and throughput and keys where they are limited."""
    axes: list[Axis] = ["score", "seconds"]
    if goal.min_throughput is not None:
        axes.append("samples_per_second")
    if goal.max_key_size is not None:
        axes.append("key_bytes")
    return tuple(axes)


def costs(point: Point, axes: Sequence[Axis], higher_is_better: bool) -> tuple[float, ...]:
    """The axes of a point, each as a number that is better when smaller."""
    up = {"score": higher_is_better, "samples_per_second": True}
    return tuple(-getattr(point, a) if up.get(a, False) else getattr(point, a) for a in axes)


def non_dominated(points: Iterable[Point], axes: Sequence[Axis], higher_is_better: bool) -> tuple[int, ...]:
    """Numbers of the points that no other dominates, from cheap to expensive; of equal ones the first.

    A point dominates another that is nowhere better and somewhere worse.
    """
    known = sorted(points, key=lambda p: (*costs(p, axes, higher_is_better), p.number))
    kept: list[tuple[tuple[float, ...], Point]] = []
    # Sorted, a point can only be dominated by one before it.
    for point in known:
        mine = costs(point, axes, higher_is_better)
        if not any(all(a <= b for a, b in zip(other, mine, strict=True)) for other, _ in kept):
            kept.append((mine, point))
    return tuple(p.number for _, p in sorted(kept, key=lambda k: (k[1].seconds, k[1].number)))
