"""Values of a call: integers as the circuit takes them, and ciphertexts as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from concrete import compiler

from ...ir.errors import DataError
from .specs import WORD
from .store import Port

FRAME = 8192
"""Most bytes that Concrete writes of a ciphertext besides its numbers: what it is, and its shape."""


def checked(ports: Sequence[Port], values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Samples of a call as int64 arrays in the circuit's order; Concrete itself accepts what does not fit.

    Raises:
        DataError: A name, shape or value that the circuit was not made for.
    """
    return [_checked(port, values) for port in ports]


def _checked(port: Port, values: Mapping[str, np.ndarray]) -> np.ndarray:
    if port.name not in values:
        raise DataError("a value to encrypt is missing", found=", ".join(values) or "none", allowed=port.name)
    array = np.asarray(values[port.name])
    if array.shape != port.shape:
        raise DataError(
            f"{port.name!r} has another shape than the circuit takes",
            found=str(array.shape),
            allowed=f"{port.shape} (a sample for each of the first axis)",
        )
    whole = np.rint(array)
    if array.dtype.kind not in "iufb" or not np.array_equal(array, whole):
        raise DataError(
            f"{port.name!r} is not an array of integers", found=str(array.dtype), allowed="integers"
        )
    low, high = int(whole.min(initial=port.low)), int(whole.max(initial=port.high))
    if low < port.low or high > port.high:
        raise DataError(
            f"{port.name!r} holds values out of range",
            found=f"{low} .. {high}",
            allowed=f"{port.low} .. {port.high}",
            do="clip them on the client, as the prologue of the model does",
        )
    return np.asarray(whole.astype(np.int64))


def decrypted(port: Port, value: Any) -> np.ndarray:
    """What Concrete decrypted, as the model counts it."""
    return np.asarray(value, np.int64).reshape(port.shape) * port.unit


def named(ports: Sequence[Port], values: Sequence[Any]) -> dict[str, Any]:
    """Values by the names of their ports."""
    return {p.name: v for p, v in zip(ports, values, strict=True)}


def dump(ciphertexts: Mapping[str, Any]) -> dict[str, bytes]:
    """Ciphertexts as bytes."""
    return {name: bytes(value.serialize()) for name, value in ciphertexts.items()}


def parse(ports: Sequence[Port], content: Mapping[str, bytes], descriptions: Sequence[Any]) -> dict[str, Any]:
    """Ciphertexts of bytes.

    Args:
        ports: What is expected.
        content: Bytes by the name of the port.
        descriptions: What Concrete's specification says of each port.

    Raises:
        DataError: One is missing, or too many are there, or one is damaged.
    """
    wanted = {p.name for p in ports}
    if set(content) != wanted:
        raise DataError(
            "these are not the ciphertexts of this circuit",
            found=", ".join(sorted(content)) or "none",
            allowed=", ".join(sorted(wanted)),
        )
    found = {}
    for port, description in zip(ports, descriptions, strict=True):
        numbers = int(np.prod(description["rawInfo"]["shape"]["dimensions"]))
        size = len(content[port.name])
        if not numbers * WORD <= size <= numbers * WORD + FRAME:
            raise DataError(
                f"the ciphertext of {port.name!r} is damaged, or of another circuit",
                found=f"{size} bytes",
                allowed=f"about {numbers * WORD} bytes",
            )
        try:
            found[port.name] = compiler.TransportValue.deserialize(content[port.name])
        except (RuntimeError, ValueError, TypeError) as error:
            raise DataError(f"the ciphertext of {port.name!r} is damaged", found=first_line(error)) from error
    return found


def first_line(error: Exception) -> str:
    """What an error of Concrete says, without the addresses of its stack."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
