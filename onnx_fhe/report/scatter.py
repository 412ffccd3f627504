"""The frontier of a search as a chart: places in per cent of its area, so that no text is ever scaled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..tuning.frontier import Frontier
from ..tuning.points import Point
from . import text

LEFT, RIGHT, TOP, BOTTOM = 12.0, 97.0, 4.0, 82.0
"""Per cent of the chart that the area takes."""


@dataclass(frozen=True)
class Dot:
    """A point of a search, as drawn."""

    point: Point
    x: float
    y: float
    on_front: bool
    chosen: bool


@dataclass(frozen=True)
class Tick:
    """A labelled line of the grid."""

    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """One chart.

    Attributes:
        title, x_label, summary: In words; the last for who does not see it.
        dots: All points, those of the frontier last.
        edge: The frontier as points of a polyline, in the same per cent.
        x_ticks, y_ticks: The grid.
        reference: Where the float model's score lies, if inside.
        outside: Points that are too bad to be drawn.
    """

    title: str
    x_label: str
    summary: str
    dots: tuple[Dot, ...]
    edge: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    reference: float | None
    outside: int


def seconds_of(point: Point) -> float:
    """Latency: as measured, where it was."""
    measured = point.measured
    return measured.seconds if measured is not None and measured.seconds else point.seconds


def score_of(point: Point) -> float:
    """The metric: as simulated by Concrete, where it was."""
    return point.measured.score if point.measured is not None else point.score


def is_share(frontier: Frontier) -> bool:
    """Whether the metric is a share, to be shown in per cent."""
    return frontier.metric == "accuracy"


def plots(frontier: Frontier) -> tuple[Plot, ...]:
    """Score against latency, and against throughput.

    As predicted for every point: were those that are measured drawn so among the others, they would seem to
    dominate, or to be dominated, where they do not.
    """
    known = [p for p in frontier.points if p.seconds > 0 and math.isfinite(p.score)]
    if not known:
        return ()
    fast = [p for p in known if p.samples_per_second > 0]
    found = [_plot(frontier, known, "latency", "seconds for one sample", _seconds, text.seconds)]
    if fast:
        found.append(_plot(frontier, fast, "throughput", "samples a second", _throughput, _rate))
    return tuple(found)


def _seconds(point: Point) -> float:
    return point.seconds


def _throughput(point: Point) -> float:
    return point.samples_per_second


def _rate(value: float) -> str:
    return f"{value:.3g}"


def _plot(
    frontier: Frontier,
    points: Sequence[Point],
    what: str,
    label: str,
    x_of: Callable[[Point], float],
    show: Callable[[float], str],
) -> Plot:
    front, chosen = set(frontier.front), frontier.chosen
    # Points that nobody would choose must not squeeze what matters into a corner.
    kept = [p for p in points if p.number in front or p is chosen] or list(points)
    scores = [p.score for p in kept]
    spread = max(max(scores) - min(scores), abs(frontier.float_score) * 0.02, 1e-9)
    low, high = min(scores) - 0.6 * spread, max([*scores, min(frontier.float_score, max(scores) + spread)])
    high += 0.12 * spread
    if not frontier.higher_is_better:
        low, high = min(scores) - 0.12 * spread, max(scores) + 0.6 * spread
    xs = [math.log10(x_of(p)) for p in points]
    margin = 0.06 * max(max(xs) - min(xs), 0.3)
    left, right = min(xs) - margin, max(xs) + margin

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (math.log10(value) - left) / (right - left)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    dots = [
        Dot(p, x(x_of(p)), y(p.score), p.number in front, chosen is not None and p.number == chosen.number)
        for p in points
        if low <= p.score <= high
    ]
    dots.sort(key=lambda d: (d.on_front, d.chosen))
    edge = sorted((d.x, d.y) for d in dots if d.on_front)
    best = "" if chosen is None else f" The chosen one has {text.score(chosen.score, is_share(frontier))}"
    best += "" if chosen is None else f" at {show(x_of(chosen))}."
    return Plot(
        f"{frontier.metric} against {what}",
        label,
        f"{len(points)} circuits by {frontier.metric} and {label}; {len(edge)} are on the frontier.{best}",
        tuple(dots),
        " ".join(f"{a:.2f},{b:.2f}" for a, b in edge),
        tuple(Tick(x(v), show(v)) for v in _decades(left, right)),
        tuple(Tick(y(v), text.score(v, is_share(frontier))) for v in _round(low, high)),
        y(frontier.float_score) if low <= frontier.float_score <= high else None,
        len(points) - len(dots),
    )


def _decades(left: float, right: float) -> list[float]:
    """Round numbers between two powers of ten: 1, 2, 5 or, on a long axis, 1 only."""
    steps = (1, 2, 5) if right - left < 1.6 else (1, 3) if right - left < 3 else (1,)
    found = [s * 10.0**e for e in range(math.floor(left), math.ceil(right) + 1) for s in steps]
    return [v for v in found if left <= math.log10(v) <= right]


def _round(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]
