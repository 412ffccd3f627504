"""The options that a circuit is made with, and what its files keep of them: by their names."""

from __future__ import annotations

from dataclasses import fields

from ..base import LowerOptions
from ..concrete_runtime.store import Settings
from ..statistics import ParameterStrategy

_KEPT = tuple(f.name for f in fields(Settings) if f.name != "strategy")


def settings_of(options: LowerOptions, strategy: ParameterStrategy) -> Settings:
    """The settings of a program that was compiled with ``options``, and this strategy."""
    return Settings(strategy=strategy, **{name: getattr(options, name) for name in _KEPT})


def options_of(settings: Settings) -> LowerOptions:
    """The options that make the same program again."""
    kept = {name: getattr(settings, name) for name in _KEPT}
    return LowerOptions(parameter_strategy=settings.strategy, **kept)
