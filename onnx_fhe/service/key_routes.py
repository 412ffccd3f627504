"""Routes of evaluation keys: upload, look, delete."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path as File
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from ..ir.errors import ArtifactError, DataError
from ..sides.headers import EvaluationKeysHeader
from ..sides.keys import EvaluationKeys
from .answers import KeysInfo, binary_body, faults, with_faults
from .bodies import chunks
from .heads import MAX_HEADER, header_of
from .keystore import Kept
from .models import check_parameters
from .refusals import Refusal, busy, disk
from .service import At, Owner, Service

router = APIRouter(prefix="/keys", tags=["keys"])

Identity = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the keys, as `onnx-fhe keygen` prints it.")
]


@router.put(
    "/{identity}",
    status_code=201,
    responses=with_faults(
        {200: {"model": KeysInfo, "description": "They were there."}}, 400, 401, 404, 408, 409, 413, 422, 507
    ),
    openapi_extra=binary_body("A file of evaluation keys, as `onnx-fhe keygen` writes it."),
)
async def upload(identity: Identity, request: Request, response: Response, at: At, owner: Owner) -> KeysInfo:
    """Upload evaluation keys. Once this has answered, they are on the disk. Secret keys are refused."""
    for kept in at.keys.of(owner):
        if kept.id == identity:
            response.status_code = 200
            return _info(at.keys.find(owner, identity))
    if at.uploads.locked():
        limit = at.limits.uploads
        raise busy("too many keys are uploaded now", found=f"{limit} uploads", allowed=f"{limit}")
    path = at.keys.upload_path(request.state.id)
    async with at.uploads:
        try:
            await _receive(request, path, identity, at, owner)
            return _info(await run_in_threadpool(_take, path, identity, at, owner))
        except OSError as error:
            raise disk(error) from error
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)


@router.get("", responses=faults(401))
async def listed(at: At, owner: Owner) -> list[KeysInfo]:
    """The keys of yours that the service has."""
    return [_info(kept) for kept in at.keys.of(owner)]


@router.head("/{identity}", responses=faults(401, 404, 422), include_in_schema=False)
@router.get("/{identity}", responses=faults(401, 404, 422))
async def look(identity: Identity, at: At, owner: Owner) -> KeysInfo:
    """Whether the service has these keys of yours; HEAD tells it without a body."""
    return _info(at.keys.find(owner, identity))


@router.delete("/{identity}", status_code=204, responses=faults(401, 404, 422))
async def delete(identity: Identity, at: At, owner: Owner) -> None:
    """Have the service forget keys of yours."""
    at.keys.remove(owner, identity)


async def _receive(request: Request, path: File, identity: str, at: Service, owner: str) -> None:
    """Write the body to a file; what does not begin as these keys do is refused before that."""
    size, head = 0, bytearray()
    pieces = chunks(request, at.limits.key_bytes, at.limits, "the file of keys")
    header = None
    async for piece in pieces:
        size += len(piece)
        head += piece
        header = _header(bytes(head))
        if header is not None or len(head) > 2 * MAX_HEADER:
            break
    if header is None:
        raise Refusal(400, "damaged", "the file of evaluation keys is damaged", do="send it again")
    if header.keys != identity:
        raise Refusal(
            409,
            "other-keys",
            "these are other keys than the address says",
            found=header.keys[:16],
            allowed=identity[:16],
            do=f"send them to /keys/{header.keys[:64]}",
        )
    _check_parameters(at, header.parameters)
    at.keys.check_room(owner, size)
    with path.open("xb", buffering=0) as file:
        path.chmod(0o600)
        await run_in_threadpool(_write, file.fileno(), bytes(head))
        head.clear()
        async for piece in pieces:
            size += len(piece)
            at.keys.check_room(owner, size)
            await run_in_threadpool(_write, file.fileno(), piece)


def _write(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def _header(head: bytes) -> EvaluationKeysHeader | None:
    try:
        return header_of(head, EvaluationKeysHeader)
    except ArtifactError as error:
        raise Refusal.of(error, 400, "damaged") from error


def _take(path: File, identity: str, at: Service, owner: str) -> Kept:
    """Check a whole file, and keep it."""
    try:
        keys = EvaluationKeys.load(path)
    except ArtifactError as error:
        raise Refusal.of(error, 400, "damaged") from error
    if keys.id != identity:
        raise Refusal(409, "other-keys", "these are other keys than the address says", do="send them again")
    _check_parameters(at, keys.parameters)
    return at.keys.add(owner, keys, path)


def _check_parameters(at: Service, parameters: str) -> None:
    try:
        check_parameters(at.models, parameters)
    except DataError as error:
        raise Refusal.of(error, 422, "other-parameters") from error


def _info(kept: Kept) -> KeysInfo:
    return KeysInfo(id=kept.id, parameters=kept.parameters, bytes=kept.bytes)
