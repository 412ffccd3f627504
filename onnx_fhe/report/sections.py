"""The sections of the page, in their order: what each is called, and when it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Section:
    """A section of the page; ``templates/sections/{name}.html`` is its heading and content.

    Attributes:
        name: Name of its template, and of the place that links lead to.
        link: Its link at the top of the page; empty for none.
        needs: The value of the page without which there is nothing to show; empty where it always is there.
    """

    name: str
    link: str
    needs: str = ""


SECTIONS = (
    Section("network", "The network"),
    Section("time", "Where time goes"),
    Section("accuracy", "Where accuracy goes", needs="stages"),
    Section("frontier", "The trade-off", needs="plots"),
    Section("faster", "What to change", needs="advice"),
    Section("missing", "", needs="problem"),
    Section("overflow", "Overflow"),
    Section("security", "Security and errors"),
    Section("making", "How it was made"),
)
"""All sections, in the order of the page."""


def shown(values: Mapping[str, Any]) -> tuple[Section, ...]:
    """The sections that a page with these values has."""
    return tuple(s for s in SECTIONS if not s.needs or values[s.needs])
