"""What a model is: levels, dialect, loading and saving, verification, printing, data, target limits, errors.

The modules are imported when they are first asked for (``from onnx_fhe import ir; ir.load.load(path)``), so
that importing this package costs nothing.
"""

# No "from __future__ import annotations" here: it would hide the module of that name.
from importlib import import_module
from types import ModuleType

MODULES = (
    "annotations",
    "data",
    "dialect",
    "errors",
    "functions",
    "graph",
    "intervals",
    "level",
    "limits",
    "load",
    "ops",
    "opsets",
    "partition",
    "paths",
    "placement",
    "printer",
    "runtime",
    "sampling",
    "save",
    "verify",
)


def __getattr__(name: str) -> ModuleType:
    if name in MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *MODULES])
