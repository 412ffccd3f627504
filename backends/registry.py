"""Backends by name, imported only when they are used."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from ..ir.errors import PluginError, UserError
from ..ir.limits import TargetLimits
from ..ir.plugins.loading import broken_plugins, load_installed, of_plugins
from ..ir.plugins.store import NameStore, NameTakenError, current_owner
from ..ir.suggest import nearest
from .base import Backend

Factory = Callable[[], Backend]
OURS = "onnx-fhe"
"""Owner of the backends that come with onnx-fhe."""

registered: NameStore[Factory] = NameStore("backend")
"""The backends of plug-ins."""


def register_backend(name: str, factory: Factory, *, owner: str | None = None) -> None:
    """Make a backend known.

    Args:
        name: The name that users type.
        factory: Returns the backend; called when it is needed, so the import of what is heavy belongs in it
            (a Backend class is a factory too).
        owner: Who brings it, as shown to the user; by default the plug-in that is being loaded, else the
            factory's module.

    Raises:
        PluginError: The name is taken.
    """
    owner = owner or getattr(factory, "__module__", None) or "unknown"
    if name in _BUILT_IN:
        raise NameTakenError.between("backend", name, OURS, current_owner() or owner)
    registered.add(name, factory, owner)


def backends() -> dict[str, str]:
    """Owners of all backends by name, ours first; loads the installed plug-ins."""
    load_installed()
    return dict.fromkeys(_BUILT_IN, OURS) | {name: x.owner for name, x in sorted(registered.entries.items())}


def get_backend(name: str) -> Backend:
    """The backend of that name. Ours are found without loading any plug-in.

    Raises:
        UserError: There is none; it suggests the nearest.
        PluginError: It cannot be imported, or two installed plug-ins want its name.
    """
    factory, owner = _BUILT_IN.get(name), OURS
    if factory is None:
        factory, owner = _of_plugins(name)
    try:
        return factory()
    except ImportError as error:
        raise PluginError(
            f"the backend {name!r} cannot be imported",
            found=str(error),
            do=f"install what {owner} needs",
        ) from error


def limits_of(name: str) -> TargetLimits:
    """What the backend of that name takes.

    concrete-python is only looked for: to import it takes seconds, and a model may be refused before.

    Raises:
        UserError, PluginError: see ``get_backend``.
    """
    if name == "concrete" and find_spec("concrete") is not None:
        return TargetLimits(name=name)
    return get_backend(name).limits()


def _of_plugins(name: str) -> tuple[Factory, str]:
    known = backends()
    if owned := of_plugins(registered, name):
        return owned.value, owned.owner
    advice = nearest(name, known)
    if names := ", ".join(p.name for p in broken_plugins()):
        advice += f"{' ' if advice else ''}(or mend the plug-in that brings it; broken: {names})"
    raise UserError(f"there is no backend {name!r}", found=name, allowed=", ".join(known), do=advice)


def _reference() -> Backend:
    from .reference import ReferenceBackend

    return ReferenceBackend()


def _concrete() -> Backend:
    from .concrete.backend import ConcreteBackend

    return ConcreteBackend()


# Not in the store: what is registered while a plug-in is loaded is the plug-in's.
_BUILT_IN: dict[str, Factory] = {"reference": _reference, "concrete": _concrete}
