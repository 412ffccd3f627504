"""Reading the body of a request: within limits of size and time, and before any worker is taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.requests import ClientDisconnect, Request

from .refusals import Refusal, busy, too_large
from .settings import Limits


async def chunks(request: Request, limit: int, limits: Limits, what: str) -> AsyncIterator[bytes]:
    """The body, piece by piece.

    Args:
        request: The request.
        limit: Bytes that the body may have.
        limits: How slowly it may come.
        what: What the body is, in words.

    Raises:
        Refusal: It is larger, comes too slowly, or ends before it is whole.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(what, int(announced), limit)
    began, received = time.monotonic(), 0
    stream = request.stream().__aiter__()
    while True:
        try:
            piece = await asyncio.wait_for(_next(stream.__anext__), limits.read_seconds)
        except (asyncio.TimeoutError, ClientDisconnect) as error:
            raise Refusal(
                408,
                "slow-body",
                f"{what} did not come to its end",
                found=f"{received} bytes",
                allowed=f"some of it every {limits.read_seconds:g} s",
                do="send it again",
            ) from error
        if piece is None:
            break
        received += len(piece)
        if received > limit:
            raise _too_large(what, received, limit)
        if time.monotonic() - began > limits.read_seconds + received / limits.bytes_per_second:
            raise Refusal(
                408,
                "slow-body",
                f"{what} comes too slowly",
                found=f"{received} bytes in {time.monotonic() - began:.0f} s",
                allowed=f"{limits.bytes_per_second} bytes a second",
                do="send it over a faster line",
            )
        yield piece


async def _next(step: Callable[[], Awaitable[bytes]]) -> bytes | None:
    """The next piece; None at the end, as no task may raise StopAsyncIteration's kin."""
    try:
        return await step()
    except StopAsyncIteration:
        return None


def _too_large(what: str, found: int, limit: int) -> Refusal:
    return too_large(
        f"{what} is too large",
        found=f"{found} bytes",
        allowed=f"{limit} bytes",
        do="send fewer samples at a time",
    )


class HeldBytes:
    """Counts the bytes of bodies that are in memory, and refuses more than there may be.

    Args:
        limits: How many there may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.bytes = 0

    async def read(self, request: Request) -> bytes:
        """The whole body; ``release`` it when it is no longer needed.

        Raises:
            Refusal: It is too large, too slow or not whole, or there is no room.
        """
        held = 0
        parts: list[bytes] = []
        try:
            async for piece in chunks(request, self._limits.body_bytes, self._limits, "the body"):
                if self.bytes + len(piece) > self._limits.held_bytes:
                    raise busy(
                        "the service holds as many encrypted inputs as it may",
                        found=f"{self.bytes} bytes",
                        allowed=f"{self._limits.held_bytes} bytes",
                    )
                parts.append(piece)
                held += len(piece)
                self.bytes += len(piece)
        except BaseException:
            self.bytes -= held
            raise
        return b"".join(parts)

    def release(self, body: bytes) -> None:
        """A body that ``read`` returned is no longer held."""
        self.bytes -= len(body)
