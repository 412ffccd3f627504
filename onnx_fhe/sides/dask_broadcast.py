"""What every worker of a Dask cluster has: the server half and evaluation keys, sent once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MAX_KEYS = 16
"""Evaluation keys that the workers keep; past that those go that were used longest ago."""


class Broadcast:
    """Content by name, on all workers.

    Args:
        client: The ``distributed.Client``.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._halves: dict[str, Any] = {}
        self._keys: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def half(self, name: str, content: bytes) -> Any:
        """A server half on the workers, which stays there; sent again where the only copy was lost."""
        with self._lock:
            self._halves[name] = self._sent(self._halves.get(name), lambda: content)
            return self._halves[name]

    def keys(self, identity: str, read: Callable[[], bytes]) -> Any:
        """Evaluation keys on the workers.

        Args:
            identity: Theirs.
            read: Returns their content; called where they have to be sent.
        """
        with self._lock:
            self._keys[identity] = self._sent(self._keys.get(identity), read)
            self._keys.move_to_end(identity)
            while len(self._keys) > MAX_KEYS:
                self._keys.popitem(last=False)
            return self._keys[identity]

    def clear(self) -> None:
        """What was sent goes from the workers."""
        with self._lock:
            self._halves.clear()
            self._keys.clear()

    def _sent(self, known: Any, read: Callable[[], bytes]) -> Any:
        if known is not None and known.status == "finished":
            return known
        return self._client.scatter(read(), broadcast=True, hash=False)
