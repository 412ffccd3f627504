"""How much a model file may hold: bounds for hostile files, far above what networks need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from ..errors import UserError


@dataclass(frozen=True)
class FileLimits:
    """Limits on a model file; whoever trusts a file may raise them.

    Attributes:
        bytes: Most bytes of the file, and of its external data altogether.
        nodes: Most nodes, those of subgraphs and of expanded functions included.
        nesting: Most subgraphs inside each other, and most functions that call each other in a chain.
        dimensions: Most axes of a tensor.
        elements: Most elements of a value that is computed, for a few samples.
        operations: Most multiplications for a few samples.
    """

    bytes: int = 2 * 1024**3
    nodes: int = 50_000
    nesting: int = 16
    dimensions: int = 16
    elements: int = 2**26
    operations: int = 2**38

    def raised(self, texts: Iterable[str]) -> FileLimits:
        """These limits with some replaced, each given as ``KEY=VALUE``.

        Raises:
            UserError: There is no such limit, or its value is not a whole number from 1 up.
        """
        known = {f.name for f in fields(self)}
        changed: dict[str, int] = {}
        for text in texts:
            key, _, value = text.partition("=")
            if key not in known or not (value.isascii() and value.isdecimal() and 0 < len(value) < 19):
                raise UserError(
                    "a limit on model files is not understood",
                    found=repr(text),
                    allowed=f"KEY=VALUE with a whole number, where KEY is {', '.join(sorted(known))}",
                    do="for example --limits nodes=200000",
                )
            if not int(value):
                raise UserError(
                    "a limit of nothing refuses every file", found=repr(text), allowed="1 or more"
                )
            changed[key] = int(value)
        return replace(self, **changed)


DEFAULTS = FileLimits()


def hint(key: str) -> str:
    """What to do about a file that is past the limit ``key``."""
    return f"if you trust the file, raise the limit with --limits {key}=N (in Python, FileLimits({key}=N))"
