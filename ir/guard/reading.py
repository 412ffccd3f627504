"""From a path to a protobuf: only regular files, only so many bytes, and only so many objects."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ..errors import ModelError
from . import wire
from .limits import FileLimits, hint

_ALLOWED = "an ONNX file (.onnx)"


def read_model(file: Path, limits: FileLimits) -> onnx.ModelProto:
    """Parse a model file without its external data.

    Raises:
        ModelError: There is no such file, it cannot be read, is no regular file, too large, or no ONNX model.
    """
    return parse_model(read_regular(file, limits.bytes), limits)


def parse_model(content: bytes, limits: FileLimits) -> onnx.ModelProto:
    """Parse the content of a model file; see ``read_model``."""
    wire.check(content, limits)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        raise ModelError(
            "this is not an ONNX file, or it is damaged",
            found=f"{len(content)} bytes that are no ONNX protobuf" if content else "an empty file",
            allowed=_ALLOWED,
            do="export the model again, or copy the file again if it came over a network",
        ) from error
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        # Almost any short text parses as a protobuf with unknown fields.
        raise ModelError(
            "this is not an ONNX model: it holds no graph",
            found="an empty file" if not content else f"{len(content)} bytes without nodes or outputs",
            allowed=_ALLOWED,
        )
    return proto


def read_regular(file: Path, most_bytes: int) -> bytes:
    """The content of a regular file.

    Raises:
        ModelError: There is no such file, it is something else, cannot be read, or is too large.
    """
    try:
        # Not to wait for the other end of a pipe; what was opened is what is looked at.
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise ModelError("there is no such model file", allowed=_ALLOWED, do="check the path") from error
    except (OSError, ValueError) as error:
        raise ModelError("the model file cannot be read", found=_reason(error), allowed=_ALLOWED) from error
    try:
        status = os.fstat(handle)
        _check_status(status, most_bytes)
        parts = []
        while part := os.read(handle, 2**26):
            parts.append(part)
            if sum(map(len, parts)) > most_bytes:
                raise _too_large(sum(map(len, parts)), most_bytes)
        return b"".join(parts)
    except OSError as error:
        raise ModelError("the model file cannot be read", found=_reason(error), allowed=_ALLOWED) from error
    finally:
        os.close(handle)


def _check_status(status: os.stat_result, most_bytes: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(
            "the model is a folder", found="a folder", allowed=_ALLOWED, do="name the file in it"
        )
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(
            "the model is not a regular file", found="a device, pipe or socket", allowed=_ALLOWED
        )
    if status.st_size > most_bytes:
        raise _too_large(status.st_size, most_bytes)


def _too_large(size: int, most_bytes: int) -> ModelError:
    return ModelError(
        "the model file is too large",
        found=_size(size),
        allowed=f"up to {_size(most_bytes)}",
        do=hint("bytes") if most_bytes < 2 * 1024**3 else "",
    )


def _size(count: int) -> str:
    return f"{count / 1024**3:.1f} GB" if count > 1024**3 // 10 else f"{count} bytes"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
