"""Numbers with their units, and names from files, as a page shows them."""

from __future__ import annotations

import math

from ..ir.errors import printable

MAX_NAME_CHARACTERS = 80
"""A longer name is cut in its middle."""

THIN = "\u202f"
"""A narrow space that does not break: between digits, and between a number and its unit."""


def name(text: object) -> str:
    """A name from a file: nothing invisible or that turns the text around, and not endless."""
    found = printable(str(text)).replace("\n", " ")
    if len(found) <= MAX_NAME_CHARACTERS:
        return found
    half = MAX_NAME_CHARACTERS // 2
    return f"{found[:half]}…{found[-half:]}"


def count(number: float) -> str:
    """A whole number, with spaces between thousands."""
    return f"{round(number):,}".replace(",", THIN)


def amount(number: int, singular: str, plural: str | None = None) -> str:
    """A whole number and what it counts."""
    return f"{count(number)} {singular if number == 1 else plural or singular + 's'}"


def seconds(value: float) -> str:
    """A time: two or three digits and the unit that suits it."""
    if value <= 0:
        return f"0{THIN}s"
    if value < 1:
        return f"{_digits(value * 1e3)}{THIN}ms" if value < 0.9995 else f"1{THIN}s"
    if value < 120:
        return f"{_digits(value)}{THIN}s"
    if value < 7200:
        return f"{_digits(value / 60)}{THIN}min"
    return f"{_digits(value / 3600)}{THIN}h"


def size(value: float) -> str:
    """Bytes."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{_digits(value / limit)}{THIN}{unit}"
    return f"{count(value)}{THIN}B"


def operations(value: float) -> str:
    """Concrete's complexity."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= limit:
            return f"{_digits(value / limit)}{THIN}{unit}"
    return count(value)


def percent(share: float) -> str:
    """A share; small ones keep two digits, and what is not all is never shown as 100 %."""
    value = 100 * share
    if not math.isfinite(value):
        return "–"
    if 0 < abs(value) < 0.01:
        return f"<{THIN}0.01{THIN}%"
    if 99.95 <= value < 100:
        return f">{THIN}99.9{THIN}%"
    shown = f"{value:.0f}" if value in (0, 100) else f"{value:.2f}" if abs(value) < 0.995 else f"{value:.1f}"
    return f"{shown}{THIN}%"


def whole_percent(share: float) -> str:
    """A share in whole per cent, for comparisons that are estimates anyway."""
    if 0 < share < 0.01:
        return f"<{THIN}1{THIN}%"
    return f"{round(100 * share)}{THIN}%"


def chance(probability: float) -> str:
    """A probability as a frequency: ``1 in 3 700``."""
    if probability <= 0:
        return "none"
    if probability >= 0.5:
        return whole_percent(probability)
    one_in = 1 / probability
    magnitude = 10 ** max(0, math.floor(math.log10(one_in)) - 1)
    return f"1 in {count(round(one_in / magnitude) * magnitude)}"


def score(value: float, is_share: bool) -> str:
    """A metric."""
    return percent(value) if is_share else f"{value:.4g}"


def power(value: float) -> str:
    """A small probability as it is written in options."""
    return f"{value:g}"


def shape(dims: tuple[int | str | None, ...]) -> str:
    """A shape without its batch axis: ``7 × 4 × 4``."""
    rest = [name(d) if d is not None else "?" for d in dims[1:]]
    return " × ".join(rest)


def _digits(value: float) -> str:
    if value >= 99.5:
        return count(value)
    return f"{value:.3g}" if value >= 9.95 else f"{value:.2g}"
