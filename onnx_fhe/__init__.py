"""onnx-fhe: trained ONNX networks as circuits that compute on encrypted data.

    model = onnx_fhe.load("model.onnx")
    program = onnx_fhe.compile(model, calibration="calibration.npz")
    program.save("model.fhe")
    program.simulate({"input": images}).outputs

Importing this package imports nothing that takes time; each name is imported when it is asked for.

It switches onnxruntime's telemetry off, for this process and those that it starts.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .ir import functions

# onnxruntime reads this when it is imported; without, it writes an identifier of the device into the user's
# cache, and looks for a host to send to.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from .compiling import compile_model as compile  # noqa: A004 - what users write is onnx_fhe.compile
    from .fidelity.figures import FidelityWarning
    from .ir.calibration import Calibration
    from .ir.data import read_npz as load_data
    from .ir.load import load
    from .passes.framework.base import Context, Pass, Target, option
    from .passes.framework.manager import PassManager
    from .passes.framework.registry import register_pass
    from .program import Program
    from .running import Result
    from .sides.client import Client
    from .sides.remote import RemoteProgram
    from .sides.server import Server
    from .sides.split import split
    from .tuning.frontier import Frontier
    from .tuning.tune import Tuned, tune

__all__ = [
    "Calibration",
    "Client",
    "Context",
    "FidelityWarning",
    "Frontier",
    "Pass",
    "PassManager",
    "Program",
    "RemoteProgram",
    "Result",
    "Server",
    "Target",
    "Tuned",
    "compile",
    "load",
    "load_data",
    "option",
    "register_pass",
    "split",
    "tune",
]


def _operators_of_plugins() -> functions.Bodies:
    """Asked when a model uses an operator that is not ONNX's own."""
    from .ir.plugins.tlu_operators import registered_tlu_operators

    return registered_tlu_operators()


functions.add_source(_operators_of_plugins)

_HOMES = {
    "Calibration": ("ir.calibration", "Calibration"),
    "Client": ("sides.client", "Client"),
    "Server": ("sides.server", "Server"),
    "split": ("sides.split", "split"),
    "Context": ("passes.framework.base", "Context"),
    "Pass": ("passes.framework.base", "Pass"),
    "PassManager": ("passes.framework.manager", "PassManager"),
    "Program": ("program", "Program"),
    "RemoteProgram": ("sides.remote", "RemoteProgram"),
    "Result": ("running", "Result"),
    "Target": ("passes.framework.base", "Target"),
    "compile": ("compiling", "compile_model"),
    "FidelityWarning": ("fidelity.figures", "FidelityWarning"),
    "Frontier": ("tuning.frontier", "Frontier"),
    "Tuned": ("tuning.tune", "Tuned"),
    "load": ("ir.load", "load"),
    "load_data": ("ir.data", "read_npz"),
    "option": ("passes.framework.base", "option"),
    "register_pass": ("passes.framework.registry", "register_pass"),
    "tune": ("tuning.tune", "tune"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("onnx-fhe")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    try:
        return getattr(import_module(f".{module}", __name__), attribute)
    except ModuleNotFoundError as error:
        from . import extras

        if (told := extras.missing(error, extras.NAMES.get(name, "compile"))) is None:
            raise
        raise told from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
