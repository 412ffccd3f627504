"""Evaluation keys that a worker has in memory, ready to compute: those that were used last."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

READY_FACTOR = 8
"""Bytes of keys that are ready to compute, for each byte of their file (7.3 for digits_mlp)."""


class KeyMemory:
    """Keys by their identity, within a number of bytes.

    Args:
        most: Bytes that all of them may take; the last that were used always stay.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    @property
    def ids(self) -> frozenset[str]:
        """The identities of those that are there."""
        return frozenset(self._known)

    def get(self, identity: str, read: Callable[[], tuple[Any, int]]) -> Any:
        """Keys, read where they are not there.

        Args:
            identity: Theirs.
            read: Returns them, and the bytes of their file.
        """
        if identity not in self._known:
            keys, size = read()
            self._known[identity] = (keys, READY_FACTOR * size)
        self._known.move_to_end(identity)
        found = self._known[identity][0]
        self._forget_old()
        return found

    def _forget_old(self) -> None:
        removed = False
        while len(self._known) > 1 and sum(size for _, size in self._known.values()) > self._most:
            self._known.popitem(last=False)
            removed = True
        if removed:
            _give_back()


def _give_back() -> None:
    """Give the memory back to the system, which the C library would keep."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
