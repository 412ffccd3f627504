"""From the body of a request to encrypted results: checked here, computed by workers."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from ..ir.errors import ArtifactError, DataError
from ..sides.ciphertexts import Call, Ciphertexts, EncryptedResults
from ..sides.headers import CiphertextsHeader
from .heads import check_size, header_of
from .keystore import unknown_keys
from .models import Model
from .outcomes import LostKeysError
from .refusals import Refusal, too_large
from .service import Service
from .settings import Limits
from .units import Unit

MAX_VALUES = 64
"""Most values of one call."""
GONE_SECONDS = 1.0
"""Seconds between two looks whether the client still waits."""


async def evaluated(body: bytes, model: Model, owner: str, request: Request, at: Service) -> EncryptedResults:
    """Compute on a file of encrypted inputs.

    Args:
        body: The file.
        model: What it is for.
        owner: Whose keys it may name.
        request: Who waits for it: work for nobody is not begun.
        at: The service.

    Raises:
        Refusal: The file is damaged or too large, its keys are unknown, or it does not fit the circuit.
    """
    asked = await run_in_threadpool(_read, body, at.limits)
    header = asked.header
    try:
        entry = model.circuit(header)
    except DataError as error:
        raise Refusal.of(error, 422, "other-circuit") from error
    kept = at.keys.find(owner, header.keys)
    if kept.parameters != entry.parameters:
        raise Refusal(
            422,
            "other-parameters",
            "the evaluation keys serve another circuit",
            found=kept.parameters[:16],
            allowed=entry.parameters[:16],
            do="make keys with the client half of this model",
        )
    units = [Unit(model.name, entry.id, kept.id, kept.path, call) for call in asked.calls]
    try:
        calls = await _computed(units, request, at)
    except LostKeysError as error:
        at.log("keys lost", {"request": request.state.id, "keys": kept.id})
        at.keys.remove(owner, kept.id)
        raise unknown_keys(kept.id) from error
    return EncryptedResults.of(header, calls)


def _read(body: bytes, limits: Limits) -> Ciphertexts:
    """Parse a body, step by step: nothing is done for what it says before that is known to be allowed."""
    try:
        header = header_of(body, CiphertextsHeader, len(body))
        if header is None:
            raise ArtifactError("this file is damaged, or was not sent whole", do="send it again")
        if header.samples > limits.samples:
            raise too_large(
                "there are too many samples in one request",
                found=f"{header.samples} samples",
                allowed=f"{limits.samples} samples",
                do="send fewer samples at a time",
            )
        if len(header.names) > MAX_VALUES:
            raise ArtifactError("a call has more values than any", found=f"{len(header.names)}")
        check_size(body, limits.samples * max(len(header.names), 1), limits.body_bytes)
        return Ciphertexts.load(body)
    except ArtifactError as error:
        raise Refusal.of(error, 400, "damaged") from error


async def _computed(units: list[Unit], request: Request, at: Service) -> list[Call]:
    """What the workers make of calls; where one fails, or nobody waits any more, the others are left."""
    at.units.add(units)
    futures = [asyncio.wrap_future(u.future) for u in units]
    together = asyncio.gather(*futures)
    gone = asyncio.ensure_future(_gone(request))
    either: set[asyncio.Future[Any]] = {together, gone}
    every: list[asyncio.Future[Any]] = [gone, together, *futures]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not together.done():
            raise Refusal(408, "gone", "nobody waits for the results any more")
        return list(together.result())
    finally:
        for future in every:
            future.cancel()


async def _gone(request: Request) -> None:
    """Wait until the client has closed its connection."""
    while not await request.is_disconnected():
        await asyncio.sleep(GONE_SECONDS)
