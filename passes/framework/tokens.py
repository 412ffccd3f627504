"""Tokens of a pipeline text, and errors that point at them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from ...ir.errors import PipelineError

Span = tuple[int, int]
Kind = Literal["word", "text", "mark", "end"]

MAX_SHOWN_CHARACTERS = 88
"""Longest stretch of the text (characters) that an error shows."""

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<mark>[{}\[\]=,@])
      | (?P<word>[^\s{}\[\]=,@"]+)
      | (?P<open>")""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """One token: ``value`` is the unquoted text of a quoted one, else what stands there."""

    kind: Kind
    value: str
    span: Span

    def is_mark(self, mark: str) -> bool:
        """Whether this is the punctuation ``mark``; a quoted ``"{"`` is not."""
        return self.kind == "mark" and self.value == mark

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.value)


def tokenize(text: str) -> Iterator[Token]:
    """Split ``text``; the last token has the kind ``end`` and an empty span.

    Raises:
        PipelineError: A quote that is never closed, or an escape that does not exist.
    """
    for match in _TOKEN.finditer(text):
        kind, value, span = match.lastgroup, match.group(), match.span()
        if kind == "open":
            raise error_at(text, span, "this quote is never closed", do='close it with "')
        if kind == "text":
            try:
                # The escapes of JSON: known to all, and json prints them too. strict=False takes newlines.
                yield Token("text", json.loads(value, strict=False), span)
            except json.JSONDecodeError as error:
                raise error_at(
                    text,
                    (span[0] + error.pos, span[0] + error.pos + 1),
                    "this escape does not exist",
                    allowed=r"\" \\ \/ \b \f \n \r \t \uXXXX",
                    do=r"write \\ where a backslash is meant",
                ) from None
        elif kind == "mark":
            yield Token("mark", value, span)
        elif kind == "word":
            yield Token("word", value, span)
    yield Token("end", "", (len(text), len(text)))


def pointed(text: str, span: Span) -> str:
    """The line of ``text`` that ``span`` begins in, and below it carets under the span."""
    start, end = span
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", start)
    last = len(text) if last < 0 else last
    if last - first > MAX_SHOWN_CHARACTERS:
        shown_from = max(first, min(start - MAX_SHOWN_CHARACTERS // 3, last - MAX_SHOWN_CHARACTERS))
        shown_to = min(last, shown_from + MAX_SHOWN_CHARACTERS)
    else:
        shown_from, shown_to = first, last
    line = "".join(c if c.isprintable() else " " for c in text[shown_from:shown_to])
    before = "..." if shown_from > first else ""
    after = "..." if shown_to < last else ""
    carets = "^" * max(1, min(end, shown_to) - start)
    return f"  {before}{line}{after}\n  {' ' * (len(before) + start - shown_from)}{carets}"


def error_at(
    text: str, span: Span, what: str, *, found: str = "", allowed: str = "", do: str = "", pass_name: str = ""
) -> PipelineError:
    """A ``PipelineError`` that shows ``text`` with carets under ``span``."""
    return PipelineError(
        f"{what}\n{pointed(text, span)}", found=found, allowed=allowed, do=do, pass_name=pass_name
    )
