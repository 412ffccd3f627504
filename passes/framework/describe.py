"""Passes, options and presets as data, for ``onnx-fhe passes``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ...ir.plugins.loading import broken_plugins
from .base import Pass
from .presets import DEFAULT, PRESETS
from .registry import PassEntry, find_pass, pass_names
from .values import describe


@dataclass(frozen=True)
class OptionDescription:
    """An option: ``type`` in words (with its bounds), ``default`` as a plain value."""

    name: str
    type: str
    default: Any
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...] | None


@dataclass(frozen=True)
class PassDescription:
    """A pass: what it does, the levels it takes and produces (None: stays), its options, who brings it.

    ``error`` says why it cannot be used; then the rest is empty.
    """

    name: str
    summary: str
    accepts: tuple[str, ...] = ()
    produces: str | None = None
    preserves: str = ""
    options: tuple[OptionDescription, ...] = ()
    owner: str = ""
    origin: str = ""
    error: str | None = None


@dataclass(frozen=True)
class PresetDescription:
    """A preset: its pipeline as text."""

    name: str
    summary: str
    pipeline: str
    default: bool


@dataclass(frozen=True)
class BrokenPlugin:
    """An installed plug-in that could not be loaded."""

    name: str
    value: str
    owner: str
    error: str


@dataclass(frozen=True)
class Catalogue:
    """Everything that a pipeline may name; ``dataclasses.asdict`` of it is JSON."""

    passes: tuple[PassDescription, ...]
    presets: tuple[PresetDescription, ...]
    broken: tuple[BrokenPlugin, ...]


def describe_passes() -> Catalogue:
    """All passes, presets and broken plug-ins; imports every pass and loads the installed plug-ins."""
    passes = tuple(describe_pass(name) for name in pass_names())
    presets = tuple(PresetDescription(n, p.summary, p.text, n == DEFAULT) for n, p in PRESETS.items())
    broken = tuple(BrokenPlugin(b.name, b.value, b.owner, str(b.error)) for b in broken_plugins())
    return Catalogue(passes, presets, broken)


def describe_pass(name: str) -> PassDescription:
    """One pass; one that cannot be imported, or whose name two owners want, has an ``error``."""
    try:
        entry = find_pass(name)
    except Exception as error:  # noqa: BLE001 - one that does not import must not hide the others
        return PassDescription(name, "", error=f"{type(error).__name__}: {error}")
    options = tuple(
        OptionDescription(s.key, describe(s.hint, s), s.default, s.help, s.low, s.high, s.choices)
        for s in entry.options
    )
    ours = entry.cls if issubclass(entry.cls, Pass) else None
    return PassDescription(
        name=entry.name,
        summary=summary_of(entry),
        accepts=tuple(str(level) for level in ours.accepts) if ours else (),
        produces=str(ours.produces) if ours and ours.produces else None,
        preserves=ours.preserves if ours else "",
        options=options,
        owner=entry.owner,
        origin=entry.origin,
    )


def summary_of(entry: PassEntry) -> str:
    """The first line of the class's docstring, or of its module's."""
    own = entry.cls.__doc__ or ""
    # A dataclass without a docstring is given its signature as one.
    if own.startswith(f"{entry.cls.__name__}("):
        own = ""
    text = inspect.cleandoc(own or import_module(entry.cls.__module__).__doc__ or "")
    return text.partition("\n")[0]
