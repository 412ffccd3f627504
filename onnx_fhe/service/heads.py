"""What a body is, seen from its first and last bytes, before anything of it is kept or unpacked."""

from __future__ import annotations

import struct
import zipfile
import zlib
from io import BytesIO
from typing import TypeVar

from ..ir.errors import ArtifactError
from ..sides.bundle import HEADER
from ..sides.headers import Header, parse

MAX_HEADER = 64 * 1024
"""Bytes of the packed header of a file of keys."""
MAX_UNPACKED_HEADER = 32 * 1024**2
"""Bytes of a header with a hash for each of very many ciphertexts."""
_LOCAL = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_LOCATOR_BYTES = 20
"""Bytes of what stands before the end of a zip of more than 65,535 files or 4 GB."""
_ENTRY_BYTES = 200
"""Most bytes that the directory of a zip takes for one of our files: a name, and what is said of it."""
_WITH_DESCRIPTOR = 8
"""Flag of a file in a zip whose size stands behind it."""

H = TypeVar("H", bound=Header)


def header_of(content: bytes, kind: type[H], longest: int = MAX_HEADER) -> H | None:
    """The header of a file, which is the first thing in it.

    Args:
        content: The first bytes of the file.
        kind: What it has to be.
        longest: Bytes that the packed header may take.

    Returns:
        The header; None where more of the file is needed.

    Raises:
        ArtifactError: It is no such file, such as secret keys, or damaged.
    """
    if len(content) < _LOCAL.size and content[:4] == b"PK\x03\x04"[: len(content[:4])]:
        return None
    found = _LOCAL.unpack_from(content) if len(content) >= _LOCAL.size else (b"",)
    if found[0] != b"PK\x03\x04":
        raise _none(kind, "something else")
    _, _, flags, method, _, _, _, packed, _, name_size, extra_size = found
    start = _LOCAL.size + name_size + extra_size
    if flags & _WITH_DESCRIPTOR or packed > longest or name_size > len(HEADER):
        raise _none(kind, "a zip that does not begin with a header")
    if len(content) < start + packed:
        return None
    if content[_LOCAL.size : _LOCAL.size + name_size] != HEADER.encode():
        raise _none(kind, "a zip that does not begin with a header")
    data = content[start : start + packed]
    try:
        plain = zlib.decompressobj(-15).decompress(data, MAX_UNPACKED_HEADER) if method else data
    except zlib.error as error:
        raise _none(kind, "a header that cannot be unpacked") from error
    return parse(kind, plain)


def check_size(content: bytes, parts: int, unpacked: int) -> None:
    """Refuse a zip of more than it may hold, before anything in it is unpacked.

    Args:
        content: The whole file.
        parts: Files that it may hold, besides its header.
        unpacked: Bytes that they may unpack to.

    Raises:
        ArtifactError: It holds more, or is no zip that onnx-fhe wrote.
    """
    end = content[-_END.size :]
    before = content[-_END.size - _LOCATOR_BYTES : -_END.size]
    if len(end) < _END.size or end[:4] != b"PK\x05\x06" or before[:4] == b"PK\x06\x07":
        raise ArtifactError("this file is damaged, or was not sent whole", do="send it again")
    _, _, _, _, entries, directory, _, _ = _END.unpack(end)
    if entries > parts + 1 or directory > _ENTRY_BYTES * (parts + 1):
        raise ArtifactError("this file holds more than its header says", found=f"{entries} files")
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            size = sum(e.file_size for e in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise ArtifactError("this file is damaged", found=str(error), do="send it again") from error
    if size > unpacked:
        raise ArtifactError(
            "this file unpacks to more than it may", found=f"{size} bytes", allowed=f"{unpacked} bytes"
        )


def _none(kind: type[Header], found: str) -> ArtifactError:
    return ArtifactError(
        f"this is no file of {kind.KIND}, or it is damaged", found=found, allowed=f"a file of {kind.KIND}"
    )
