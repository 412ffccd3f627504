"""One value of an option: brought to its type, checked against its bounds, described in words."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from ...ir.errors import PipelineError
from ...ir.suggest import nearest

OptionPath = tuple[str | int, ...]
"""Where a value stands: the option's field name, then keys of mappings and places in lists."""


class OptionError(PipelineError):
    """An option that a pass does not have, or a value that it does not take.

    Attributes:
        path: Which value.
        on_key: Whether its key is wrong, not its value.
        of_kind: Whether the value is of another kind than asked for (as against out of bounds).
    """

    path: OptionPath = ()
    on_key: bool = False
    of_kind: bool = True


@dataclasses.dataclass(frozen=True)
class OptionSpec:
    """One option: what it is called, and what it may be.

    Attributes:
        name: Name of the field.
        hint: Its type hint, resolved.
        default: Its default value.
        help: One sentence.
        low, high: Bounds (inclusive) of every number in the value.
        choices: What every word in the value must be one of.
        formerly: The name that it had in the release before, which still parses; empty for none.
    """

    name: str
    hint: Any
    default: Any = None
    help: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    formerly: str = ""

    @property
    def key(self) -> str:
        """The name as it is printed, with dashes."""
        return self.name.replace("_", "-")

    @property
    def per_layer(self) -> bool:
        """Whether this is ``layers``: node name -> options of the same pass."""
        if self.name != "layers" or get_origin(self.hint) is not MAPPING:
            return False
        return get_origin(get_args(self.hint)[1]) is MAPPING


MAPPING = get_origin(Mapping[str, int])


def convert_value(value: Any, hint: Any, spec: OptionSpec, path: OptionPath) -> Any:
    """``value`` as type ``hint`` holds it, within the bounds and choices of ``spec``.

    ``path`` says where it stands.

    Raises:
        OptionError: It is of another kind, or out of bounds.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_to_one(value, hint, parts, spec, path)
    if origin is Literal:
        value = _as_word(value, parts)
        found: Any = next((c for c in parts if value == c and type(value) is type(c)), _NO_VALUE)
    elif origin in (tuple, MAPPING):
        found = _several(value, hint, spec, path)
    else:
        found = _single(value, hint, spec, path)
    if found is _NO_VALUE:
        raise _mismatch(value, hint, spec, path)
    return found


_NO_VALUE = object()
"""What is found where a value is of another kind: None may be a value."""


def _several(value: Any, hint: Any, spec: OptionSpec, path: OptionPath) -> Any:
    """``value`` as a tuple or mapping, each of its parts converted."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = parts[:1] * len(value) if parts[1:] == (...,) else parts
        if len(kinds) == len(value):
            pairs = zip(value, kinds, strict=True)
            return tuple(convert_value(v, k, spec, (*path, i)) for i, (v, k) in enumerate(pairs))
    elif origin is MAPPING and isinstance(value, Mapping):
        keys = dataclasses.replace(spec, choices=None)
        return {
            convert_value(k, parts[0], keys, path): convert_value(v, parts[1], spec, (*path, k))
            for k, v in value.items()
        }
    return _NO_VALUE


def _single(value: Any, hint: Any, spec: OptionSpec, path: OptionPath) -> Any:
    """``value`` as a number, a truth value, a word or none."""
    if hint is Any:
        return value
    if hint in (int, float):
        return _number(value, hint, spec, path)
    if hint is str and spec.choices is not None:
        word = _as_word(value, spec.choices)
        return word if word in spec.choices else _NO_VALUE
    return value if hint in (str, bool, type(None)) and isinstance(value, hint) else _NO_VALUE


def _number(value: Any, kind: type, spec: OptionSpec, path: OptionPath) -> Any:
    """``value`` as an int or a float within the bounds."""
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        return _NO_VALUE
    if kind is int:
        return _bounded(value, spec, path)
    number = _as_float(value)
    return _NO_VALUE if math.isnan(number) else _bounded(number, spec, path)


def _as_word(value: Any, choices: tuple[Any, ...]) -> Any:
    """``true``, ``false`` and ``none`` are words where a choice is called so (not the value itself)."""
    if not (value is None or isinstance(value, bool)) or any(value is c for c in choices):
        return value
    return shown(value) if shown(value) in choices else value


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _convert_to_one(
    value: Any, hint: Any, members: tuple[Any, ...], spec: OptionSpec, path: OptionPath
) -> Any:
    """The first member of a union that takes the value; else the error that got furthest."""
    best: OptionError | None = None
    for member in members:
        try:
            return convert_value(value, member, spec, path)
        except OptionError as error:
            if not error.of_kind or len(error.path) > len(path):
                best = error
    if value == "none" and type(None) in members:
        return None  # TOML has no other way to say it.
    raise best or _mismatch(value, hint, spec, path)


def _bounded(number: Any, spec: OptionSpec, path: OptionPath) -> Any:
    low, high = spec.low, spec.high
    if (low is None or number >= low) and (high is None or number <= high):
        return number
    error = _mismatch(number, type(number), spec, path)
    error.of_kind = False
    raise error


def _mismatch(value: object, hint: Any, spec: OptionSpec, path: OptionPath) -> OptionError:
    words = [w for w in _words(hint, spec) if isinstance(w, str)]
    do = nearest(value, words) if isinstance(value, str) else ""
    if not do and _takes_text(hint, spec) and isinstance(value, (bool, int, float)):
        do = f'put it in quotes if text is meant: "{value}"'
    error = OptionError(
        f"option {label(path)!r} does not take this value",
        found=shown(value),
        allowed=describe(hint, spec),
        do=do,
    )
    error.path = path
    return error


def _words(hint: Any, spec: OptionSpec) -> tuple[Any, ...]:
    """The words that a value of this type may be."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return parts
    if origin in (Union, types.UnionType):
        return tuple(w for p in parts for w in _words(p, spec))
    return spec.choices or () if hint is str else ()


def _takes_text(hint: Any, spec: OptionSpec) -> bool:
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return spec.choices is None and str in members


def label(path: OptionPath) -> str:
    """A path in words: ``layers[/fc1/Gemm].weights``, ``sizes[2]``."""
    first, *rest = path
    text = str(first).replace("_", "-")
    for i, part in enumerate(rest):
        text += f".{str(part).replace('_', '-')}" if first == "layers" and i == 1 else f"[{part}]"
    return text


def shown(value: object) -> str:
    """A value as a pipeline text has it, or as Python has it where the text has no form for it."""
    plain = {True: "true", False: "false", None: "none"}
    return plain[value] if value is None or isinstance(value, bool) else repr(value)


def describe(hint: Any, spec: OptionSpec | None = None) -> str:
    """What a type (with the bounds and choices of ``spec``) takes, in words for a user."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(p, spec) for p in parts)
    if origin is Literal:
        return " or ".join(str(p) for p in parts)
    if origin is tuple:
        one = " ".join(describe(p, spec) for p in parts if p is not ...)
        return f"[list of: {one}]" if parts[1:] == (...,) else f"[{one}]"
    if origin is MAPPING:
        if spec is not None and spec.per_layer:
            return "{node={option=value}}"
        return f"{{name={describe(parts[1], spec)}}}"
    if hint in (int, float):
        return ("whole number" if hint is int else "number") + _bounds(spec)
    if hint is str and spec is not None and spec.choices is not None:
        return " or ".join(spec.choices)
    names = {bool: "true or false", str: "text", type(None): "none", Any: "anything"}
    return names.get(hint, str(hint))


def _bounds(spec: OptionSpec | None) -> str:
    if spec is None or (spec.low is None and spec.high is None):
        return ""
    if spec.high is None:
        return f" from {spec.low:g} up"
    return f" up to {spec.high:g}" if spec.low is None else f" from {spec.low:g} to {spec.high:g}"
