"""Connections that send no request, or only a part of its head, are closed: they would hold a descriptor."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def watched(seconds: float) -> type[H11Protocol]:
    """The HTTP protocol for uvicorn, which has a limit between two requests, and none before the first.

    Args:
        seconds: In which the head of a request has to come whole, from the opening of the connection or from
            the first byte that follows another request.
    """

    class Watched(H11Protocol):
        """A connection whose next request has to come in time."""

        _closing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._closing = self.loop.call_later(seconds, self._close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop()
            elif self._closing is None:
                self._closing = self.loop.call_later(seconds, self._close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _stop(self) -> None:
            if self._closing is not None:
                self._closing.cancel()
                self._closing = None

        def _close(self) -> None:
            self._closing = None
            # Idle to h11 is a client of whom no whole head has come since the last answer.
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return Watched
