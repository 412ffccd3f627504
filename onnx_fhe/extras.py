"""What is installed for which purpose: the extras of the package, by what is imported of them.

A client, a server and the compiler are installed alone (``pip install 'onnx-fhe[client]'``). Whoever asks for
something whose extra is missing is told its name instead of that of a module.
"""

from __future__ import annotations

from .ir.errors import MissingPackageError

_RUNTIME = {"concrete", "mlir", "jsonpickle", "pkg_resources"}
_COMPILER = _RUNTIME | {
    "jinja2",
    "networkx",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "threadpoolctl",
    "tomli",
}
MODULES = {
    "compile": _COMPILER,
    "client": _RUNTIME | {"httpx", "onnxruntime"},
    "server": _RUNTIME | {"fastapi", "prometheus_client", "starlette", "uvicorn"},
    "dask": {"dask", "distributed"},
    "tune": _COMPILER | {"cloudpickle", "dask", "distributed", "optuna"},
    "train": _COMPILER | {"torch"},
}
"""Import names of the packages of each extra of pyproject.toml that brings something to run."""

COMMANDS = {
    "keygen": "client",
    "encrypt": "client",
    "decrypt": "client",
    "evaluate": "server",
    "serve": "server",
    "ask": "client",
    "tune": "tune",
}
"""The extra of each command that is not the compiler's own."""

NAMES = {
    "Client": "client",
    "RemoteProgram": "client",
    "Server": "server",
    "Frontier": "tune",
    "Tuned": "tune",
    "tune": "tune",
}
"""The extra of each name of the Python API that is not the compiler's own."""


def missing(error: ImportError, asked: str) -> MissingPackageError | None:
    """What to say instead of an error of Python's import.

    Args:
        error: The error.
        asked: The extra that whoever asked should have.

    Returns:
        None where no package of an extra is missing, but something else.
    """
    module = (error.name or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError):
        return None
    extra = next((e for e in (asked, *MODULES) if module in MODULES[e]), None)
    if extra is None:
        return None
    return MissingPackageError(
        "a package that this needs is not installed",
        found=f"no {module}",
        do=f"pip install 'onnx-fhe[{extra}]'",
    )
