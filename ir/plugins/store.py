"""Names that anyone may add to: who owns each, and no name twice.

Passes, TLU-able operators and backends are kept in stores. While a plug-in is
loaded, everything that is added belongs to it, and is taken back if it fails half way (``plugins``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from ..errors import PluginError

T = TypeVar("T")

_owner: ContextVar[str | None] = ContextVar("onnx_fhe_owner", default=None)


class NameTakenError(PluginError):
    """A name that someone else has; ``name`` and ``kind`` say which."""

    kind: str = ""
    name: str = ""

    @classmethod
    def between(cls, kind: str, name: str, first: str, second: str) -> NameTakenError:
        """The error of two owners that want one name."""
        error = cls(
            f"two owners want the {kind} {name!r}",
            found=f"{first} and {second}",
            allowed="each name once",
            do="remove one of them, or rename what it registers",
        )
        error.kind, error.name = kind, name
        return error


def current_owner() -> str | None:
    """The plug-in that is being loaded, if one is."""
    return _owner.get()


@dataclass(frozen=True)
class Owned(Generic[T]):
    """A registered thing and its owner: a distribution, a module or a file."""

    value: T
    owner: str


class NameStore(Generic[T]):
    """Things by name.

    Args:
        kind: What they are, in the singular, for errors.
    """

    all: ClassVar[list[NameStore[Any]]] = []

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.entries: dict[str, Owned[T]] = {}
        NameStore.all.append(self)

    def add(self, name: str, value: T, owner: str) -> None:
        """Add ``value`` for the plug-in that is being loaded, or else for ``owner``.

        Raises:
            NameTakenError: The name is taken by something else.
        """
        owner = _owner.get() or owner
        known = self.entries.get(name)
        if known is not None and not _is_the_same(known.value, value):
            raise NameTakenError.between(self.kind, name, known.owner, owner)
        self.entries[name] = Owned(value, known.owner if known else owner)


def _is_the_same(known: object, new: object) -> bool:
    """The same thing again: registered twice, or its module (a notebook's cell) run anew."""
    if known is new or known == new:
        return True
    names = ("__module__", "__qualname__")
    return (
        isinstance(known, type)
        and isinstance(new, type)
        and all(getattr(known, n) == getattr(new, n) for n in names)
    )


@contextmanager
def owned_by(owner: str) -> Iterator[None]:
    """All that is added meanwhile belongs to ``owner``, and is taken back when an error leaves the block."""
    before = {id(store): dict(store.entries) for store in NameStore.all}
    token = _owner.set(owner)
    try:
        yield
    except BaseException:
        for store in NameStore.all:  # one made meanwhile is emptied
            entries = before.get(id(store), {})
            store.entries.clear()
            store.entries.update(entries)
        raise
    finally:
        _owner.reset(token)
