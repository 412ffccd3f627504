"""Archives of arrays (.npz): what they declare, before numpy allocates it."""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path

import numpy as np

from .errors import DataError

MAX_DATA_BYTES = 8 * 1024**3
"""What any data file may unpack to."""
_MAX_COMPRESSION_RATIO = 20
"""How many times its own size a data file may unpack to, besides ``MAX_DATA_BYTES``."""
_MAX_ARRAYS = 1000
"""Arrays in one data file."""


def check_archive(path: Path, allowed: str) -> None:
    """Refuse what is no regular file, or unpacks to more than fits; the rest is up to numpy.

    Raises:
        DataError: It is, or does; ``allowed`` says what is wanted.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DataError("the data file is not a regular file", found="a device or pipe", allowed=allowed)
        size = 0 if path.is_dir() else path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, struct.error, NotImplementedError):
        return  # numpy.load says what is wrong
    if total > MAX_DATA_BYTES + _MAX_COMPRESSION_RATIO * size or len(archive.infolist()) > _MAX_ARRAYS:
        raise DataError(
            "the data file unpacks to more than fits",
            found=f"{len(archive.infolist())} arrays, {total} bytes, from a file of {size} bytes",
            allowed=f"{_MAX_ARRAYS} arrays, {MAX_DATA_BYTES} bytes (and {_MAX_COMPRESSION_RATIO} times the"
            " file)",
            do="give fewer samples: a few hundred are enough for calibration",
        )


def check_member(content: np.lib.npyio.NpzFile, name: str) -> None:
    """Refuse an array that declares another size than it has, before numpy allocates it.

    Raises:
        ValueError: It does, or it holds Python objects.
    """
    entry = next((e for e in (name, f"{name}.npy") if e in content.zip.namelist()), name)
    with content.zip.open(entry) as file:
        if file.read(6) != b"\x93NUMPY":
            return
        version = tuple(file.read(2))
        header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file)  # type: ignore[no-untyped-call]
        size = math.prod(shape) * dtype.itemsize + file.tell()
    if not dtype.hasobject and (size != content.zip.getinfo(entry).file_size or min(shape, default=0) < 0):
        raise ValueError(f"it declares shape {shape} of {dtype}, which is not what it holds")
