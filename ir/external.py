"""Weights in files of their own: only from the model's folder, checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import external_data_helper

from .errors import ModelError
from .walk import tensors


def load_external_data(proto: onnx.ModelProto, file: Path, most_bytes: int) -> None:
    """Read every external tensor of ``proto`` into it.

    Args:
        proto: The model; changed in place.
        file: Where the model was read from.
        most_bytes: Most bytes that the external data may have altogether.

    Raises:
        ModelError: A file is missing, too short, outside the model's folder, or there is too much of it.
    """
    total = 0
    for tensor in list(_external(proto)):
        total += _size(tensor, file.resolve().parent)
        if total > most_bytes:
            raise ModelError(
                "the model's external data is too large",
                found=f"more than {most_bytes / 1024**3:.0f} GB",
                allowed=f"up to {most_bytes / 1024**3:.0f} GB",
            )
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(file.resolve().parent))
        except Exception as error:
            raise ModelError(
                "a weight's external data cannot be read",
                found=f"tensor {tensor.name!r}: {error}",
                do="keep the data file beside the model",
            ) from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _external(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for tensor in tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def _size(tensor: onnx.TensorProto, folder: Path) -> int:
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    found = f"tensor {tensor.name!r} in {location!r}"
    allowed = "a file in the folder of the model"
    # Both readings of the name: a file written on Windows must not escape here, nor the other way round.
    pure = (PurePosixPath(location), PureWindowsPath(location))
    if not location or any(p.is_absolute() or p.drive or ".." in p.parts for p in pure):
        raise ModelError(
            "a weight's external data lies outside the model's folder", found=found, allowed=allowed
        )
    target = folder / location
    if not target.resolve().is_relative_to(folder):
        raise ModelError(
            "a weight's external data lies outside the model's folder", found=found, allowed=allowed
        )
    if not target.is_file():
        raise ModelError(
            "a weight's external data is missing",
            found=f"no file {location!r} for tensor {tensor.name!r}",
            allowed=allowed,
            do="copy the data file beside the model",
        )
    try:
        offset = int(entries.get("offset", "0") or 0)
        length = int(entries.get("length", "0") or 0) or max(target.stat().st_size - offset, 0)
    except ValueError as error:
        raise ModelError("a weight's external data has no valid place", found=found) from error
    if offset < 0 or length < 0 or offset + length > target.stat().st_size:
        raise ModelError(
            "a weight's external data is cut short",
            found=f"{found}: {target.stat().st_size} bytes",
            allowed=f"at least {offset + length} bytes",
            do="copy the data file again",
        )
    return length
