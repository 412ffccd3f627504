"""The figures as Markdown."""

from __future__ import annotations

import math
from typing import Any

from .sweep import DRAWS

CIRCUITS = (
    "model",
    "circuit",
    "setting",
    "accuracy: validation",
    "test",
    "bootstraps",
    "complexity, G",
    "compile, s",
    "keys, s",
    "keys, MB",
    "memory, MB",
    "encrypted, s",
    "of the peer's best",
    "over the limit",
    "predicted",
)

SHORT = (
    "model",
    "circuit",
    "test",
    "bootstraps",
    "complexity, G",
    "encrypted, s",
    "of the peer's best",
    "over the limit",
)
"""What is told first; the whole follows."""


def to_markdown(report: dict[str, Any]) -> str:
    """The whole report: circuits, how the peer's were chosen, and what either side takes to have."""
    where = (
        f"{report['date'][:10]}, {report['cores_used']} of {report['cores']} cores of {report['processor']}"
    )
    parts = [f"`{report['command']}`, {where}"]
    rows = [row for m in report["models"] for row in _rows(m)]
    if rows:
        short = [[row[CIRCUITS.index(name)] for name in SHORT] for row in rows]
        names = tuple("accuracy" if name == "test" else name for name in SHORT)
        parts += [_table(names, short), _reading(report), _table(CIRCUITS, rows)]
    parts += ["\n".join(f"- {_choice(m, report['max_accuracy_drop'])}" for m in report["models"])]
    if all("import_seconds" in report[side] for side in ("peer", "ours")):
        parts.append(_sides(report))
    packages = report["peer"]["packages"]
    told = [f"{name} {version}" for name, version in packages.items()]
    parts.append(f"The peer ran with {', '.join(told)}.")
    return "\n\n".join(parts)


def _rows(model: dict[str, Any]) -> list[list[str]]:
    """A row for each circuit; the float model's accuracy stands in front."""
    floats, samples = model["float"], model["samples"].get("test")
    accuracies = [_percent(floats.get("validation")), _percent(floats.get("test"), samples)]
    if not model["circuits"]:
        return []
    rows = [[model["model"], "float", "", *accuracies, *([""] * (len(CIRCUITS) - 5))]]
    best = next((c for c in model["circuits"] if c["side"] == "peer" and "seconds" in c), None)
    for one in model["circuits"]:
        simulated = one.get("simulated") or {}
        rows.append(
            [
                "",
                one["name"],
                one["setting"] if one["side"] == "peer" else f"`{one['setting']}`",
                _percent(simulated.get("validation")),
                _percent(simulated.get("test"), samples),
                str(one.get("bootstraps", "-")),
                _number(one.get("complexity"), 1e9),
                _number(one.get("compile_seconds")),
                _number(one.get("keygen_seconds")),
                _number(one.get("key_bytes"), 1e6),
                _number(one.get("peak_memory_bytes"), 1e6),
                _seconds(one),
                _ratio(one, best),
                _number(one.get("over_limit")),
                _number(one.get("predicted_over_limit")),
            ]
        )
    return rows


def _reading(report: dict[str, Any]) -> str:
    bootstrap = report["bootstrap"]
    milliseconds = bootstrap["milliseconds"]
    return (
        f"Accuracy is simulated, the mean of {DRAWS} simulations, with the standard error that the number of"
        " samples leaves (up to 1.4 times that for a difference of two). `encrypted` is the server's work for"
        " one sample: the median of samples, by turns (in brackets how many). Over the limit: that time over"
        f" bootstraps times the cheapest one of {bootstrap['bits']} bits ({milliseconds:.1f} ms here, p_error"
        f" {bootstrap['p_error']:g}); `predicted` is the same for the time that the cost model predicts."
    )


def _choice(model: dict[str, Any], drop: float) -> str:
    """How the peer's settings were chosen, in words."""
    sweep = model["sweep"]
    known = {t: f for t, f in sweep["settings"].items() if t != sweep["as_it_comes"]}
    counts = {key: sum(key in f for f in known.values()) for key in ("refused", "dropped", "simulated")}
    told = (
        f"{model['model']}: {len(known)} settings of the peer, {counts['refused']} refused by it,"
        f" {counts['dropped']} dropped as hopeless, {counts['simulated']} simulated on all validation samples"
    )
    best = sweep["chosen"].get("best of its sweep")
    if best is None:
        return f"{told}; none of them computes."
    if sweep["settings"][best]["simulated"] < sweep["wanted"]:
        told += f"; none loses at most {100 * drop:g} points, so its best is the most accurate"
    plain = sweep["settings"].get(sweep["as_it_comes"], {})
    comes = (
        f"{plain['complexity'] / 1e9:.0f} G, {_percent(plain['clear'])} in the clear"
        if "complexity" in plain
        else "refused"
    )
    return f"{told}. As it comes ({sweep['as_it_comes']}): {comes}."


def _sides(report: dict[str, Any]) -> str:
    rows = [
        [
            name,
            _number(sum(report[side]["installed_bytes"].values()), 1e9),
            _number(report[side]["installed_bytes"].get("torch"), 1e9),
            _number(report[side]["import_seconds"]),
            _number(report[side]["import_memory_bytes"], 1e6),
        ]
        for side, name in (("peer", "Concrete ML"), ("ours", "onnx-fhe"))
    ]
    return _table(("", "installed, GB", "of that torch", "import, s", "memory after it, MB"), rows)


def _seconds(one: dict[str, Any]) -> str:
    if "seconds" in one:
        return f"{_number(one['seconds'])} ({one['samples']})"
    if one.get("expected_seconds"):
        return f"about {_number(one['expected_seconds'])} expected"
    return "failed" if "not_encrypted" in one else "-"


def _ratio(one: dict[str, Any], best: dict[str, Any] | None) -> str:
    if best is None or "seconds" not in one:
        return "-"
    share = one["seconds"] / best["seconds"]
    return f"1/{1 / share:.1f}" if share < 0.95 else f"{share:.1f}"


def _percent(share: float | None, samples: int | None = None) -> str:
    """With the standard error of a share of so many samples, where their number is given."""
    if share is None:
        return "-"
    error = f" ± {100 * math.sqrt(share * (1 - share) / samples):.1f}" if samples else ""
    return f"{100 * share:.1f}{error} %"


def _number(value: float | None, unit: float = 1.0) -> str:
    """Three digits that count; none behind the point from 100 on."""
    if value is None:
        return "-"
    value /= unit
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(names: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(names), ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
