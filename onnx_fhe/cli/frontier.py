"""What a search found, for people and for programs; and where one stands, on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import output

if TYPE_CHECKING:
    from ..tuning.frontier import Frontier
    from ..tuning.points import Point
    from ..tuning.state import State

VISIBLE_DIFFERENCE = 5e-5
"""Difference of two scores from which on they are printed differently."""
MAX_SHOWN_POINTS = 8
"""Points of the frontier that are shown while the search runs."""


def report(frontier: Frontier, out: Path | None, listing: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "file": None if out is None else str(out),
        "trials_file": str(listing),
        "metric": frontier.metric,
        "float_score": frontier.float_score,
        "goal": frontier.goal,
        "trials": len(frontier.points) + len(frontier.failures),
        "best": None if frontier.best is None else frontier.point(frontier.best),
        "cautious": None if frontier.cautious is None else frontier.point(frontier.cautious),
        "nearest": None if frontier.nearest is None else frontier.point(frontier.nearest),
        "unmet": frontier.unmet,
        "frontier": frontier.front_points,
        "test": frontier.test,
        "stopped": frontier.stopped,
        "notes": frontier.notes,
    }


_HEADERS = (
    "trial",
    "score",
    "seconds",
    "bootstraps",
    "p_error",
    "keys, MB",
    "measured score",
    "measured seconds",
)


def _row(point: Point) -> tuple[object, ...]:
    real = point.measured
    return (
        point.number,
        f"{point.score:.4f}",
        f"{point.seconds:.3f}",
        point.bootstraps,
        f"{point.tolerated:g}",
        f"{point.key_bytes / 1e6:.1f}",
        "" if real is None else f"{real.score:.4f}",
        "" if real is None or real.seconds is None else f"{real.seconds:.3f}",
    )


def show(frontier: Frontier, out: Path, listing: Path) -> None:
    """Print it."""
    count = len(frontier.points) + len(frontier.failures)
    output.say(f"{count} trials; the float model's {frontier.metric} is {frontier.float_score:.4f}\n")
    output.table(_HEADERS, [_row(p) for p in frontier.front_points])
    output.say(f"\nseconds as predicted with {frontier.priced_with}")
    output.notes(frontier.notes)
    if frontier.best is not None:
        best = frontier.point(frontier.best)
        output.say(f"\n{out}: trial {best.number}")
        rows = [("pipeline", best.pipeline), ("--p-error", f"{best.p_error:g}")]
        if best.tolerated != best.p_error:
            rows.append(("tolerated", f"{best.tolerated:g} of the lookups may go wrong"))
        if real := best.measured:
            took = "" if real.seconds is None else f", {real.seconds:.3f} s a sample on ciphertexts"
            rows.append(("measured", f"{frontier.metric} {real.score:.4f} in simulation{took}"))
        if best.expected is not None and abs(best.expected - best.score) >= VISIBLE_DIFFERENCE:
            rows.append(
                (
                    "expected",
                    f"{frontier.metric} {best.expected:.4f} on other samples, by agreement and its size",
                )
            )
        rows += _odds(frontier, best)
        if frontier.why:
            rows.append(("why", frontier.why))
        if test := frontier.test:
            error = "" if test.score_error is None else f" +- {test.score_error:.4f}"
            rows.append(
                (
                    "test",
                    f"{frontier.metric} {test.score:.4f}, float model {test.float_score:.4f}"
                    f" (difference{error or ' without a standard error'}) on {test.samples} samples",
                )
            )
        output.facts(rows)
    output.say(f"{listing}: all trials and the frontier")


def _odds(frontier: Frontier, best: Point) -> list[tuple[str, str]]:
    """The odds that the best circuit holds the limit on accuracy, and what more caution costs."""
    from ..tuning.judge import CAUTIOUS_ODDS

    if best.holds is None:
        return []
    other = None if frontier.cautious is None else frontier.point(frontier.cautious)
    if other is None or other.number == best.number:
        text = f"{best.holds:.0%} that it holds the limit on accuracy on other samples"
        return [("odds", text if other is not None else f"{text}; no trial is surer to {CAUTIOUS_ODDS:.0%}")]
    return [
        (
            "odds",
            f"{best.holds:.0%} that it holds the limit on accuracy on other samples,"
            f" {other.holds or 0.0:.0%} for trial {other.number}",
        ),
        (
            "caution",
            f"trial {other.number} has {other.bootstraps} bootstraps and {other.seconds:.3f} s a sample, not"
            f" {best.bootstraps} and {best.seconds:.3f} s; --confidence 1.28 takes it",
        ),
    ]


def drawn(state: State) -> Any:
    """Where a search stands, as Rich draws it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    best = state.best
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in _HEADERS[:6]:
        table.add_column(header, justify="right")
    front = state.front
    # Around the best, where there are more than fit.
    at = front.index(best) if best is not None and best in front else 0
    begin = max(0, min(at - MAX_SHOWN_POINTS // 2, len(front) - MAX_SHOWN_POINTS))
    for point in front[begin : begin + MAX_SHOWN_POINTS]:
        table.add_row(*map(str, _row(point)[:6]), style="bold" if point is best else "")
    failed = f", {len(state.failures)} failed" if state.failures else ""
    line = (
        f"{state.what}: {len(state.points)} trials{failed}, {state.running} running, {state.seconds:.0f} s;"
        f" frontier of {len(front)}"
    )
    found = "nothing holds the constraints yet" if best is None else f"best so far: trial {best.number}"
    return Group(Text(line), table, Text(found))
