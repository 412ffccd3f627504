"""What a search found: every point, the frontier, the finalists and the best. The JSON beside the circuit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ..ir.errors import ArtifactError
from ..passes.base import Margin
from .goal import Goal

FORMAT = 1
"""Version of the JSON; a newer one is refused."""

Axis = Literal["score", "seconds", "samples_per_second", "key_bytes"]


@dataclass(frozen=True)
class Measured:
    """What a compiled circuit really does.

    Attributes:
        score: The metric on the validation data, with Concrete's simulation.
        samples: Samples that were simulated.
        agreement: Share of simulated predictions that equal the integer model's; None for regressors.
        seconds: Median of evaluating one encrypted sample; None where none ran.
        encrypted_samples: Samples that were encrypted.
        encrypted_agreement: The same of the encrypted ones.
        keygen_seconds: Making the keys.
        compile_seconds: Passes and circuit.
        bootstraps: Programmable bootstraps of one sample.
        complexity: Concrete's own prediction of the operations.
        key_bytes: Evaluation keys as they are sent.
    """

    score: float
    samples: int
    agreement: float | None
    seconds: float | None
    encrypted_samples: int
    encrypted_agreement: float | None
    keygen_seconds: float | None
    compile_seconds: float
    bootstraps: int
    complexity: float
    key_bytes: int


@dataclass(frozen=True)
class Point:
    """One pipeline that was tried. With the model, ``pipeline``, ``p_error``, ``seed`` and the range options
    ``compile`` makes the same integer model again, bit for bit.

    Attributes:
        number: Of the trial.
        pipeline: The passes, as text with all that differs from their defaults.
        p_error: Error of one lookup that passes are told; tolerated where the pipeline says nothing else.
        seed, range_mode, range_margin: As in ``passes.base.Context``.
        score: The metric on the validation data, with the errors of encryption modelled.
        score_error: Standard error of the difference to the float model on these samples; None where the
            metric has none.
        seconds: Predicted latency of one sample.
        samples_per_second: Predicted throughput.
        key_bytes: Predicted size of the evaluation keys.
        bootstraps: Programmable bootstraps of one sample.
        complexity: Predicted operations of one sample.
        overflows: Validation samples that leave a declared range.
        sha256: Of the integer model.
        parameters: What the search chose.
        trial_seconds: What the trial took.
        measured: What was measured of the compiled circuit, where it was a finalist.
        expected: The score that other samples will probably give, what others of its size scored being known
            (``luck``); None where nothing is known of it.
    """

    number: int
    pipeline: str
    p_error: float
    seed: int
    range_mode: Literal["observed", "sound"]
    range_margin: Margin
    score: float
    score_error: float | None
    seconds: float
    samples_per_second: float
    key_bytes: int
    bootstraps: int
    complexity: float
    overflows: int
    sha256: str
    parameters: dict[str, Any] = field(default_factory=dict)
    trial_seconds: float = 0.0
    measured: Measured | None = None
    expected: float | None = None

    @property
    def tolerated(self) -> float:
        """The tolerated error of one lookup, whoever says it."""
        return float(self.parameters.get("p_error", self.p_error))


@dataclass(frozen=True)
class Failure:
    """A pipeline that gave no circuit, and why."""

    number: int
    pipeline: str
    reason: str
    parameters: dict[str, Any] = field(default_factory=dict)


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
        higher_is_better: Of the metric.
        float_score: The metric of the float model on the validation data.
        samples: Validation samples.
        goal: The constraints.
        axes: What is traded on the frontier.
        points: All trials that gave a circuit.
        failures: Those that did not.
        front: Numbers of the points that no other dominates, from cheap to dear.
        finalists: Numbers of those that were compiled and measured, in that order.
        best: Number of the chosen one; None where no point holds the constraints.
        nearest: Where none does: the point that misses them least.
        unmet: The constraints that it misses, in words.
        confidence: Standard errors by which limits on accuracy should be cleared.
        backend: Name of the backend.
        seed: Of the search.
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
        """The points that no other dominates, from cheap to dear."""
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
        return (
            "points of the frontier score as well or better on these samples for less, but are less sure"
            f" to on others (--confidence {self.confidence:g})"
        )

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
        try:
            plain = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(damaged, found=str(error)) from error
        written = plain.get("format") if isinstance(plain, dict) else None
        if not isinstance(written, int) or written < 1:
            raise ArtifactError(damaged, found="no format version")
        if written > FORMAT:
            raise ArtifactError(
                "this result was written by a newer onnx-fhe",
                found=f"format {written}",
                allowed=f"up to {FORMAT}",
                do="update onnx-fhe",
            )
        try:
            return TypeAdapter(cls).validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise ArtifactError(
                damaged, found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from error


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
    """Numbers of the points that no other dominates, from cheap to dear; of equal ones the first.

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
