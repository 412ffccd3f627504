"""JSON files with a version: one of a newer onnx-fhe is refused as such, before its content is looked at."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from .ir.errors import ArtifactError

T = TypeVar("T")


def parse(content: bytes, newest: int, *, damaged: str, newer: str, do: str) -> dict[str, Any]:
    """The JSON object that a file holds, its ``format`` checked.

    Args:
        content: Content of the file.
        newest: The newest format that is read.
        damaged: The error of a file that is no such JSON.
        newer: The error of a file of a newer format.
        do: What to do about that.

    Raises:
        ArtifactError: It is damaged, or of a newer format.
    """
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(damaged, found=str(error)) from error
    written = plain.get("format") if isinstance(plain, dict) else None
    if not isinstance(written, int) or written < 1:
        raise ArtifactError(damaged, found="no format version")
    if written > newest:
        raise ArtifactError(newer, found=f"format {written}", allowed=f"up to {newest}", do=do)
    found: dict[str, Any] = plain
    return found


def validate(content: bytes, adapter: TypeAdapter[T], *, damaged: str) -> T:
    """What a JSON text holds, as an object of the adapter's type.

    Raises:
        ArtifactError: A part is missing, or is none of what it may be; the first one is named.
    """
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ArtifactError(damaged, found=f"{place}: {first['msg']}") from error
