"""Suggesting a known word for one that was mistyped."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean X?`` for the known word most like ``word``, or nothing."""
    by_plain = {_plain(k): k for k in known}
    close = get_close_matches(_plain(word), list(by_plain), n=1, cutoff=0.6)
    return f"did you mean {by_plain[close[0]]}?" if close else ""


def _plain(word: str) -> str:
    return word.lower().replace("_", "-")
