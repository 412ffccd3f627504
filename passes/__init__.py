"""Passes over ONNX models, and the framework that runs them.

Importing this package imports nothing else; each name is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..ir.calibration import Calibration
    from ..ir.plugins.tlu_operators import register_tlu_operator
    from ..ir.range_options import RangeOptions
    from .framework.base import Context, Pass, Target, option
    from .framework.manager import PassManager
    from .framework.registry import register_pass

__all__ = [
    "Calibration",
    "Context",
    "Pass",
    "PassManager",
    "RangeOptions",
    "Target",
    "option",
    "register_pass",
    "register_tlu_operator",
]

_HOMES = {
    "Calibration": ".ir.calibration",
    "Context": "framework.base",
    "Pass": "framework.base",
    "option": "framework.base",
    "PassManager": "framework.manager",
    "RangeOptions": ".ir.range_options",
    "Target": "framework.base",
    "register_pass": "framework.registry",
    "register_tlu_operator": ".ir.plugins.tlu_operators",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
