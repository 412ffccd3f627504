"""Plug-ins: modules, callables and files that add passes, TLU-able operators and backends.

An installed package names its plug-in in the entry-point group ``onnx_fhe.plugins``; ``--plugin`` and
``load_plugin`` take a module or a file. Importing the module (and calling it, where it is a callable)
registers what it brings with ``onnx_fhe.passes.register_pass``, ``onnx_fhe.passes.register_tlu_operator``
and ``onnx_fhe.backends.registry.register_backend``. A plug-in is loaded wholly or, if it raises, not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from ..errors import PluginError
from ..suggest import nearest
from .store import NameStore, NameTakenError, Owned, owned_by

T = TypeVar("T")

GROUP = "onnx_fhe.plugins"


@dataclass(frozen=True)
class Plugin:
    """A plug-in that was loaded, or that failed to.

    Attributes:
        name: Its entry point's name, or what was given to ``load_plugin``.
        value: Its module (and attribute), or its file.
        owner: Who it belongs to, as errors and listings name it.
        error: Why it could not be loaded.
    """

    name: str
    value: str
    owner: str
    error: PluginError | None = None


_plugins: dict[str, Plugin] = {}
"""All that were tried, by value."""
_installed = False


def load_installed() -> None:
    """Load the installed plug-ins, once. One that fails is recorded (``broken_plugins``) and does no harm."""
    global _installed
    if _installed:
        return
    # Set first: a plug-in may look up passes while it is loaded.
    _installed = True
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        if entry.value not in _plugins:
            dist = entry.dist
            owner = f"{dist.name} {dist.version}" if dist else entry.name
            _load(Plugin(entry.name, entry.value, owner), lambda e=entry: _run(e))  # type: ignore[misc]


def load_plugin(spec: str) -> Plugin:
    """Load one plug-in now: ``package.module``, ``package.module:callable`` or ``path/to/file.py``.

    Raises:
        PluginError: It cannot be loaded, or takes a name that is taken; names the file and the cause.
    """
    is_file = spec.endswith(".py") or "/" in spec or "\\" in spec
    key = str(Path(spec).resolve()) if is_file else spec
    plugin = _plugins.get(key)
    if plugin is None:
        run = (lambda: _import_file(Path(key))) if is_file else (lambda: _run(EntryPoint(spec, spec, GROUP)))
        plugin = _load(Plugin(spec, key, spec), run)
    if plugin.error is not None:
        raise plugin.error
    return plugin


def plugins() -> tuple[Plugin, ...]:
    """All plug-ins that were tried so far, the broken ones among them."""
    return tuple(_plugins.values())


def broken_plugins() -> tuple[Plugin, ...]:
    """The plug-ins that could not be loaded, each with its error."""
    return tuple(p for p in _plugins.values() if p.error is not None)


def of_plugins(store: NameStore[T], name: str) -> Owned[T] | None:
    """What an installed plug-in registered under ``name``; None where none did.

    Another plug-in may want the name too, so all are loaded before one is believed.

    Raises:
        NameTakenError: Two plug-ins want it.
    """
    load_installed()
    for plugin in broken_plugins():
        taken = plugin.error
        if isinstance(taken, NameTakenError) and (taken.kind, taken.name) == (store.kind, name):
            raise taken
    return store.entries.get(name)


def _load(plugin: Plugin, run: Callable[[], None]) -> Plugin:
    try:
        # What a plug-in prints while it is imported must not end up in the output of `--json`.
        with owned_by(plugin.owner), contextlib.redirect_stdout(sys.stderr):
            run()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a plug-in raises, SystemExit too, must do no harm
        plugin = Plugin(plugin.name, plugin.value, plugin.owner, _as_plugin_error(plugin, error))
    _plugins[plugin.value] = plugin
    return plugin


def _run(entry: EntryPoint) -> None:
    try:
        loaded = entry.load()
    except ModuleNotFoundError as error:
        if error.name and (entry.module + ".").startswith(error.name + "."):
            raise PluginError(
                f"there is no module {error.name!r}",
                allowed="an installed module, or a file such as ./my_passes.py",
                do=_file_like(entry.module),
            ) from error
        raise
    if callable(loaded):
        loaded()


def _file_like(module: str) -> str:
    """A file beside us that may have been meant."""
    files = [str(f) for f in Path().glob("*.py")]
    return nearest(module + ".py", files)


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise PluginError("there is no such file", allowed="a Python file, or the name of a module")
    # The name must be one of its own, and in sys.modules: dataclasses look their module up there.
    digest = hashlib.sha1(str(path).encode(), usedforsecurity=False).hexdigest()[:8]
    name = f"onnx_fhe_plugin_{digest}_{path.stem}"
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError("this is not a Python file", allowed="a file that ends in .py")
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _as_plugin_error(plugin: Plugin, error: BaseException) -> PluginError:
    """What went wrong, where in the plug-in's files, and whose plug-in it is; no traceback."""
    if isinstance(error, PluginError):
        if not isinstance(error, NameTakenError):
            error.what = f"the plug-in {plugin.name!r} cannot be loaded: {error.what}"
        error.located(file=plugin.value)
        return error
    found = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}"
        found = f"{type(error).__name__}: {error.msg}"
    else:
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")
        ]
        own = [f for f in frames if f.filename != __file__]
        place = f"{own[-1].filename}, line {own[-1].lineno}" if own else plugin.value
    broken = PluginError(
        f"the plug-in {plugin.name!r} of {plugin.owner} cannot be loaded",
        file=place,
        found=found,
        do="mend or uninstall it",
    )
    broken.__cause__ = error
    return broken
