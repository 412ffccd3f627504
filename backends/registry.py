"""Backends by name, imported only when they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..ir.errors import PluginError, UserError
from .base import Backend

Factory = Callable[[], Backend]


@dataclass(frozen=True)
class _Entry:
    factory: Factory
    owner: str


_entries: dict[str, _Entry] = {}


def register_backend(name: str, factory: Factory, owner: str) -> None:
    """Make a backend known.

    Args:
        name: The name that users type.
        factory: Returns the backend; called when it is needed, so the import of what is heavy belongs in it
            (a Backend class is a factory too).
        owner: Who brings it, as shown to the user: a package or a file.

    Raises:
        PluginError: The name is taken.
    """
    if (taken := _entries.get(name)) is not None:
        raise PluginError(
            f"two backends want the name {name!r}",
            found=f"{taken.owner} and {owner}",
            do="rename one of them",
        )
    _entries[name] = _Entry(factory, owner)


def unregister_backend(name: str) -> None:
    """Forget a backend; unknown names are ignored."""
    _entries.pop(name, None)


def backends() -> dict[str, str]:
    """Owners of the known backends by name, in order of registration."""
    return {name: entry.owner for name, entry in _entries.items()}


def get_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UserError: There is none.
        PluginError: It cannot be imported.
    """
    entry = _entries.get(name)
    if entry is None:
        raise UserError("no such backend", found=name, allowed=", ".join(_entries))
    try:
        return entry.factory()
    except ImportError as error:
        raise PluginError(
            f"the backend {name!r} cannot be imported",
            found=str(error),
            do=f"install what {entry.owner} needs",
        ) from error


def _reference() -> Backend:
    from .reference import ReferenceBackend

    return ReferenceBackend()


def _concrete() -> Backend:
    from .concrete.backend import ConcreteBackend

    return ConcreteBackend()


register_backend("reference", _reference, "onnx-fhe")
register_backend("concrete", _concrete, "onnx-fhe")
