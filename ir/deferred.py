"""Importing a package without another one that it imports at once and hardly ever uses.

onnx_ir imports sympy for arithmetic on names of axes, Concrete imports torch to evaluate convolutions in
Python: seconds at every start, for nothing that most commands do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def without(name: str) -> Iterator[None]:
    """While inside, an import of the package ``name`` gives a stand-in that imports it when it is first used.

    Afterwards the name is free: whoever imports it from then on gets the package itself. Nothing happens
    where it has been imported before.
    """
    if name in sys.modules:
        yield
        return
    stand_in = _StandIn(name)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        stand_in.wait = False
        stand_in.leave()


class _StandIn(ModuleType):
    """A package that is imported when it is first used."""

    wait = True
    """Whether what is asked for now is only kept, not used yet."""

    def __getattr__(self, attribute: str) -> Any:
        # Python asks a module for its spec, and a debugger all modules for their files.
        if attribute.startswith("__") and attribute != "__path__":
            raise AttributeError(attribute)
        # A module in the package is about to be imported where a path is asked for.
        if self.wait and attribute != "__path__":
            return _Later(self, attribute)
        return getattr(self.real(), attribute)

    def leave(self) -> None:
        """Let the next import of the name find the package."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]

    def real(self) -> ModuleType:
        """The package."""
        self.leave()
        # The builtin function, not importlib's: the command line watches it for the time that imports take.
        return __import__(self.__name__)


class _Later:
    """A function or class that a module keeps while it is imported, and calls later if at all."""

    def __init__(self, package: _StandIn, name: str) -> None:
        self._package, self._name = package, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return getattr(self._package.real(), self._name)(*arguments, **named)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(getattr(self._package.real(), self._name), attribute)
