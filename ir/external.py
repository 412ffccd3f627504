"""Weights in files of their own: only from the model's folder, checked before anything is read."""

from __future__ import annotations

import math
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from .errors import ModelError
from .guard.limits import hint
from .guard.weights import check_content, content_bytes
from .walk import tensors

_ALLOWED = "a file in the folder of the model, not reached through links"
_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})


def load_external_data(proto: onnx.ModelProto, file: Path, most_bytes: int) -> None:
    """Read every external tensor of ``proto`` into it.

    A location is a relative path of regular files in real folders: symbolic links, which may lead anywhere,
    are not followed, and what was opened is what is looked at.

    Args:
        proto: The model; changed in place.
        file: Where the model was read from.
        most_bytes: Most bytes that the external data may have altogether.

    Raises:
        ModelError: A file is missing, too short, outside the model's folder, not of the size that the tensor
            declares, or there is too much of it.
    """
    total = 0
    folder = Path(os.path.realpath(file)).parent
    for tensor in list(_external(proto)):
        location, offset, length = _place(tensor)
        total += length
        if total > most_bytes:
            raise ModelError(
                "the model's external data is too large",
                found=f"more than {most_bytes} bytes",
                allowed=f"up to {most_bytes} bytes",
                do=hint("bytes"),
            )
        tensor.raw_data = _read(folder, location, offset, length, tensor.name)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
        check_content(tensor)


def _external(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for tensor in tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def _place(tensor: onnx.TensorProto) -> tuple[str, int, int]:
    """Location, offset and length in bytes; the length is what the tensor's shape calls for."""
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    found = f"tensor {tensor.name!r} in {location!r}"
    # Every reading of the name: a file written on Windows must not escape here, nor the other way round, nor
    # one with characters that only look like others.
    folded = unicodedata.normalize("NFKC", location)
    pure = [kind(name) for kind in (PurePosixPath, PureWindowsPath) for name in (location, folded)]
    if not location or any(p.is_absolute() or p.drive or ".." in p.parts for p in pure):
        raise ModelError(
            "a weight's external data lies outside the model's folder", found=found, allowed=_ALLOWED
        )
    if not location.isprintable() or len(PurePosixPath(folded).parts) != len(PurePosixPath(location).parts):
        raise ModelError(
            "a weight's external data has a name that cannot be shown as it is",
            found=found,
            allowed="a name of printable characters",
        )
    numbers = [entries.get(key, "") or "0" for key in ("offset", "length")]
    if not all(n.isascii() and n.isdecimal() and len(n) < 19 for n in numbers) or set(entries) - _KEYS:
        raise ModelError(
            "a weight's external data has no valid place",
            found=f"{found}: offset {numbers[0]!r}, length {numbers[1]!r}",
            allowed="whole numbers of bytes from 0 up",
        )
    offset, length = map(int, numbers)
    wanted = content_bytes(tensor, math.prod(tensor.dims))
    if tensor.data_type == onnx.TensorProto.STRING or (length and length != wanted):
        raise ModelError(
            "a weight's external data does not have the size of its tensor",
            found=f"{found}: {length} bytes",
            allowed=f"{wanted} bytes for shape {list(tensor.dims)}",
        )
    return location, offset, wanted


def _read(folder: Path, location: str, offset: int, length: int, name: str) -> bytes:
    what = f"tensor {name!r} in {location!r}"
    try:
        with os.fdopen(_open(folder, location), "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelError("a weight's external data is no regular file", found=what, allowed=_ALLOWED)
            if offset + length > status.st_size:
                raise ModelError(
                    "a weight's external data is cut short",
                    found=f"{what}: {status.st_size} bytes",
                    allowed=f"at least {offset + length} bytes",
                    do="copy the data file again",
                )
            opened.seek(offset)
            return opened.read(length)
    except FileNotFoundError as error:
        raise ModelError(
            "a weight's external data is missing",
            found=f"no file {location!r} for tensor {name!r}",
            allowed=_ALLOWED,
            do="copy the data file beside the model",
        ) from error
    except (OSError, ValueError) as error:
        link = getattr(error, "errno", None) in _LINKS
        raise ModelError(
            "a weight's external data is reached through a link, which may lead outside the model's folder"
            if link
            else "a weight's external data cannot be read",
            found=f"{what}: {getattr(error, 'strerror', None) or error}",
            allowed=_ALLOWED,
            do="keep the data file itself beside the model",
        ) from error


_LINKS = frozenset({40, 62, 20})
"""ELOOP (Linux, macOS) and ENOTDIR: what O_NOFOLLOW answers to a link."""


def _open(folder: Path, location: str) -> int:
    """A handle on a file below ``folder``, no part of whose path is a symbolic link."""
    no_follow = getattr(os, "O_NOFOLLOW", 0)
    flags = os.O_RDONLY | no_follow | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if os.open not in os.supports_dir_fd:
        target = folder / location
        if target.resolve() != target:
            raise ModelError("a weight's external data is reached through a link", found=location)
        return os.open(target, flags)
    *folders, last = [p for p in PurePosixPath(location).parts if p != "."] or ["."]
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | no_follow, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(last, flags, dir_fd=at)
    finally:
        os.close(at)
