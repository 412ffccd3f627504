"""Sides of circuits by the name of their backend."""

from __future__ import annotations

from ..ir.errors import PluginError, UnsupportedError
from .sides import Sides


def sides_of(name: str) -> Sides:
    """The sides of the circuits of a backend.

    Raises:
        UserError: There is no such backend.
        UnsupportedError: Its circuits have no two sides.
        PluginError: It cannot be imported.
    """
    if name == "concrete":
        return _concrete()
    from .registry import get_backend

    found = get_backend(name).sides()
    if found is None:
        raise UnsupportedError(
            "circuits of this backend have no client and server apart", found=name, allowed="concrete"
        )
    return found


def _concrete() -> Sides:
    from warnings import catch_warnings, filterwarnings

    try:
        with catch_warnings():
            # What concrete-python imports says so on every start.
            filterwarnings("ignore", message=".*pkg_resources", category=UserWarning)
            from .concrete_runtime.client import ConcreteClient
            from .concrete_runtime.server import ConcreteServer
    except ImportError as error:
        raise PluginError(
            "concrete-python cannot be imported, which keys and ciphertexts need",
            found=str(error),
            do="pip install 'onnx-fhe[client]' where the keys are, 'onnx-fhe[server]' where it is computed",
        ) from error
    return Sides(ConcreteClient.read, ConcreteServer.read)
