"""The text form of a pipeline: ``name{key=value key=value},name``.

Values are numbers, words, ``true``, ``false``, ``none``, ``"quoted"`` (with the escapes of JSON), lists
``[a b]`` and mappings ``{k=v}``; keys may be quoted. ``@FILE.toml`` stands for the passes of a file
(``toml_text``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, Protocol

from ...ir.errors import OnnxFheError, PipelineError
from .tokens import Span, Token, error_at, pointed, tokenize
from .values import OptionError, OptionPath, OptionSpec

MAX_NESTING = 16
"""Most lists and mappings inside each other."""

_INT = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|nan)")
_BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./:+-]*")
_SPELLED: dict[str, bool | None] = {"true": True, "false": False, "none": None}


class Place(Protocol):
    """Where a pass was written: knows how to point at it and at each of its values."""

    def locate(self, error: OnnxFheError) -> OnnxFheError:
        """``error`` with its place added: an ``OptionError`` at its value, any other at the pass."""
        ...


@dataclass
class TextPlace:
    """A pass in a pipeline text.

    Attributes:
        text: The whole pipeline.
        name: Where the name of the pass stands.
        keys, values: Where each option, and each value inside it, stands.
    """

    text: str
    name: Span
    keys: dict[OptionPath, Span] = field(default_factory=dict)
    values: dict[OptionPath, Span] = field(default_factory=dict)

    def locate(self, error: OnnxFheError) -> OnnxFheError:
        """``error`` with the text shown in it and carets under the place."""
        span = self.name
        if isinstance(error, OptionError):
            spans = self.keys if error.on_key else self.values
            paths = [error.path[:n] for n in range(len(error.path), 0, -1)]
            span = next((spans[p] for p in paths if p in spans), span)
        shown = "\n" + pointed(self.text, span)
        if shown not in error.what:  # a broken plug-in raises the same error every time
            error.what += shown
        return error


class ParsedPass(NamedTuple):
    """One pass of a pipeline text, not yet looked up.

    Attributes:
        name: The name of a pass or preset, or a file for ``@FILE``.
        options: Values by field name (underscores).
        place: Where it stands, for errors.
        is_file: Whether ``@`` stood before the name.
    """

    name: str
    options: dict[str, Any]
    place: Place
    is_file: bool = False


def parse(text: str) -> list[ParsedPass]:
    """Parse a pipeline text; names and options are not looked up here.

    Raises:
        PipelineError: It does not follow the grammar; the message points at the token.
    """
    return _Parser(text).pipeline()


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(tokenize(text))
        self.at = 0
        self.place = TextPlace(text, (0, 0))

    def pipeline(self) -> list[ParsedPass]:
        passes = [self.item()]
        while not self.accept_end():
            if not self.accept(","):
                self.fail(
                    "this does not go on from the pass before", "a comma and the next pass, or {options}"
                )
            passes.append(self.item())
        return passes

    def item(self) -> ParsedPass:
        is_file = self.accept("@") is not None
        token = self.take()
        if token.kind != "word" and not (is_file and token.kind == "text"):
            wanted = "a file" if is_file else "the name of a pass or preset"
            self.fail(
                f"{wanted} is missing here", f"{wanted}, such as normalize" * (not is_file), token=token
            )
        self.place = TextPlace(self.text, token.span)
        options = {}
        if not is_file and (brace := self.accept("{")):
            options = self.pairs(brace, (), lambda key: key.replace("-", "_"))
        return ParsedPass(token.value, options, self.place, is_file)

    def pairs(self, brace: Token, path: OptionPath, key_of: Callable[[str], str]) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        while not self.accept("}"):
            token = self.take()
            if token.kind not in ("word", "text"):
                self.fail_inside(token, brace, "key=value, or }")
            key = key_of(token.value)
            if key in pairs:
                self.fail(f"{token.value!r} is given twice", "each key once", token=token)
            if not self.accept("="):
                self.fail(f"{token.value!r} has no value", f"{token.value}=VALUE", token=token)
            here = (*path, key)
            self.place.keys[here] = token.span
            pairs[key] = self.value(here)
        return pairs

    def value(self, path: OptionPath) -> Any:
        token = self.take()
        value: Any
        if len(path) > MAX_NESTING:
            self.fail("too many lists or mappings inside each other", f"{MAX_NESTING} at most", token=token)
        if token.kind == "text":
            value = token.value
        elif token.kind == "word":
            value = self.word(token)
        elif token.is_mark("["):
            value = self.items(token, path)
        elif token.is_mark("{"):
            value = self.pairs(token, path, lambda key: key)
        else:
            self.fail("a value is missing here", 'a number, word, "text", [list] or {mapping}', token=token)
        self.place.values[path] = (token.span[0], self.tokens[self.at - 1].span[1])
        return value

    def items(self, bracket: Token, path: OptionPath) -> list[Any]:
        items: list[Any] = []
        while not self.accept("]"):
            token = self.peek()
            if token.kind in ("mark", "end") and token.value not in ("[", "{"):
                self.fail_inside(token, bracket, "a value, or ]")
            items.append(self.value((*path, len(items))))
        return items

    def word(self, token: Token) -> Any:
        word = token.value
        if word in _SPELLED:
            return _SPELLED[word]
        try:
            if _INT.fullmatch(word):
                return int(word)
        except ValueError:
            self.fail("this number has too many digits", token=token)
        return float(word) if _FLOAT.fullmatch(word) else word

    def peek(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.peek()
        self.at += token.kind != "end"
        return token

    def accept(self, mark: str) -> Token | None:
        return self.take() if self.peek().is_mark(mark) else None

    def accept_end(self) -> bool:
        return self.peek().kind == "end"

    def fail_inside(self, token: Token, opening: Token, allowed: str) -> NoReturn:
        """Something that cannot stand between brackets."""
        if token.kind == "end":
            self.fail(f"this {opening.value} is never closed", allowed, token=opening)
        advice = "separate options by spaces, not commas" if opening.value == "{" else "separate by spaces"
        self.fail(f"{token} cannot stand here", allowed, advice * token.is_mark(","), token=token)

    def fail(self, what: str, allowed: str = "", do: str = "", token: Token | None = None) -> NoReturn:
        token = token or self.peek()
        raise error_at(self.text, token.span, what, found=str(token), allowed=allowed, do=do)


def print_options(name: str, specs: tuple[OptionSpec, ...], values: Mapping[str, Any]) -> str:
    """``name{key=value ...}`` in the order of ``specs``, without the values that are the default."""
    parts = []
    for spec in specs:
        value = values[spec.name]
        if _same(value, spec.default):
            continue
        if spec.per_layer:
            value = {node: {k.replace("_", "-"): v for k, v in own.items()} for node, own in value.items()}
        parts.append(f"{spec.key}={_print_value(value)}")
    return f"{name}{{{' '.join(parts)}}}" if parts else name


def _same(value: object, default: object) -> bool:
    """Equal, and of one kind: 1 is not true."""
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _print_value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_print_text(k)}={_print_value(v)}" for k, v in sorted(value.items()))
        return f"{{{' '.join(pairs)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(_print_value(v) for v in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _print_text(value)
    if isinstance(value, (int, float)):
        return repr(value)
    raise PipelineError("a pipeline text cannot hold this value", found=repr(value))


def _print_text(text: str) -> str:
    bare = _BARE.fullmatch(text) and text not in _SPELLED and not _FLOAT.fullmatch(text)
    return text if bare else json.dumps(text, ensure_ascii=False)
