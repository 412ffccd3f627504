"""The tables of ``compile_time.py``: seconds by preset, curves with their exponents, seconds of each pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

SHARE, STEEP = 0.05, 1.15
"""A pass is named under a curve where it takes this share at the largest size and grows faster than that.

A curve is linear where its exponent is at most `STEEP`.
"""

Row = Mapping[str, Any]


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report as tables."""
    rows: list[Row] = list(report["rows"])
    sides = list(report["sides"])
    settings = report["settings"]
    parts = [
        f"`{report['command']}`, {report['date'][:10]}, {report['cores']} cores of {report['processor']},"
        f" load {report['load']} at the start; revision"
        f" {', '.join(f'{r} ({n})' for n, r in report['sides'].items())};"
        f" backend {settings['backend']}, medians of {settings['repeats']}"
    ]
    models = [r for r in rows if not r["curve"]]
    if models:
        parts += [_models(models, sides), _passes(models, sides)]
    for curve in dict.fromkeys(r["curve"] for r in rows if r["curve"]):
        parts.append(_curve(curve, [r for r in rows if r["curve"] == curve], sides))
    parts += [
        f"{r['name']}, {r['pipeline']}, {name}: {found['error'].strip()}"
        for r in rows
        for name, found in r["sides"].items()
        if "error" in found
    ]
    return "\n\n".join(parts)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """The slope of seconds against sizes in log-log, by least squares; None for fewer than two sizes."""
    if len(set(sizes)) < 2 or min(seconds) <= 0:
        return None
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _models(rows: Sequence[Row], sides: Sequence[str]) -> str:
    lines = []
    for row in rows:
        for name in sides:
            if "error" in (found := row["sides"][name]):
                continue
            lines.append(
                [
                    row["name"],
                    row["pipeline"],
                    *([name] if len(sides) > 1 else []),
                    f"{found['seconds']:.1f}",
                    f"{found['processor_seconds']:.1f}",
                    *([_times(row, name, sides[0])] if len(sides) > 1 else []),
                    str(found["bootstraps"]),
                    f"{found['complexity'] / 1e9:.2f}",
                    "-" if found["agreement"] is None else f"{found['agreement']:.1%}",
                    "-" if found["r2"] is None else f"{found['r2']:.3f}",
                    f"{found['peak_memory_mb']:.0f}",
                ]
            )
    compared = len(sides) > 1
    header = ["model", "preset", *(["side"] if compared else []), "seconds", "processor, s"]
    header += [*(["times"] if compared else []), "bootstraps", "complexity, G"]
    return _table([*header, "agreement", "R^2", "memory, MB"], lines)


def _times(row: Row, name: str, first: str) -> str:
    """How many times as long a side takes as the first one, by processor time."""
    ours, theirs = row["sides"][first], row["sides"][name]
    if name == first or "error" in ours:
        return ""
    return f"{theirs['processor_seconds'] / ours['processor_seconds']:.2f}"


def _passes(rows: Sequence[Row], sides: Sequence[str]) -> str:
    """What takes the processor's time: stages, and the passes that take a twentieth of it."""
    lines = []
    for row in rows:
        for name in sides:
            if "error" in (found := row["sides"][name]):
                continue
            spent = {**found["passes"], **{f"({k})": v for k, v in _rest(found).items()}}
            large = sorted((s, k) for k, s in spent.items() if s > found["processor_seconds"] / 20)[::-1]
            text = ", ".join(f"{k} {s:.1f}" for s, k in large)
            lines.append([row["name"], row["pipeline"], *([name] if len(sides) > 1 else []), text])
    header = [
        "model",
        "preset",
        *(["side"] if len(sides) > 1 else []),
        "processor seconds of passes and (stages)",
    ]
    return _table(header, lines)


def _rest(found: Mapping[str, Any]) -> dict[str, float]:
    """The stages beside the passes, and what watches and judges these."""
    stages = dict(found["stages"])
    watched = stages.pop("passes", 0.0) - sum(found["passes"].values())
    return {**stages, "beside passes": max(watched, 0.0)}


def exponents(rows: Sequence[Row], side: str) -> tuple[float | None, float | None]:
    """Of the processor seconds of a curve on one side: over all sizes, and between the two largest."""
    known = [
        (r["size"], r["sides"][side]["processor_seconds"]) for r in rows if "error" not in r["sides"][side]
    ]
    sizes, seconds = [size for size, _ in known], [spent for _, spent in known]
    return exponent(sizes, seconds), exponent(sizes[-2:], seconds[-2:])


def _curve(what: str, rows: Sequence[Row], sides: Sequence[str]) -> str:
    """A line for each kind of seconds; exponents of processor seconds, which other programs do not change."""
    lines, told = [], []
    for name in sides:
        whole, last = exponents(rows, name)
        side = f" ({name})" if len(sides) > 1 else ""
        for title, key, powers in (
            ("seconds", "seconds", ["", ""]),
            ("processor, s", "processor_seconds", [_number(whole), _number(last)]),
        ):
            cells = [f"{r['sides'][name][key]:.1f}" if key in r["sides"][name] else "-" for r in rows]
            lines.append([f"{title}{side}", *cells, *powers])
        if last is not None:
            grows = "Linear in" if last <= STEEP else "Faster than linear in"
            told.append(
                f"{grows} {what}{side}: the exponent of the last two sizes is {last:.2f}, {STEEP} is allowed."
            )
    lines.append(["bootstraps", *(str(r["sides"][sides[0]].get("bootstraps", "-")) for r in rows), "", ""])
    table = _table([what, *(str(r["size"]) for r in rows), "exponent", "of the last two"], lines)
    good = [(r["size"], r["sides"][sides[0]]) for r in rows if "error" not in r["sides"][sides[0]]]
    if steep := ", ".join(f"{name} {power:.2f} ({seconds:.1f} s)" for seconds, name, power in _steep(good)):
        told.append(f"Faster than linear between the last two, of what takes time: {steep}.")
    return "\n\n".join([table, *told])


def _steep(good: Sequence[tuple[int, Mapping[str, Any]]]) -> list[tuple[float, str, float]]:
    """What grows faster than linearly between the two largest sizes: seconds, pass or stage, exponent."""
    found = []
    for (small, before), (large, after) in list(pairwise(good))[-1:]:
        spent = [{**x["passes"], **{f"({k})": v for k, v in _rest(x).items()}} for x in (before, after)]
        for name, seconds in spent[1].items():
            power = exponent([small, large], [spent[0].get(name, 0.0), seconds])
            if seconds > SHARE * after["processor_seconds"] and power is not None and power > STEEP:
                found.append((seconds, name, power))
    return sorted(found, reverse=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
