"""Concrete's description of a program: what a client must know of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from concrete import compiler

from ...ir.errors import ArtifactError

WORD = 8
"""Bytes of a number of a key or a ciphertext."""
MAX_KEYS = 64
"""Most keys of one set that are thought of."""
KEY_FRAME = 4096
"""Most bytes that Concrete writes of a key besides its numbers (measured: 352 for two keys)."""


@dataclass(frozen=True)
class Described:
    """A description, read.

    Attributes:
        information: Concrete's own object.
        function: Name of the one function.
        inputs, outputs: What is said of each value that is encrypted, in order.
        parameters: A hash of the parameters of the keys: keys made for one circuit serve another of the same.
        key_bytes: Bytes of the numbers of the evaluation keys; None where there are keys of a kind whose size
            is not known here.
    """

    information: Any
    function: str
    inputs: list[Any]
    outputs: list[Any]
    parameters: str
    key_bytes: int | None


def described(specs: bytes) -> Described:
    """Read what ``library.specs_of`` returned.

    Raises:
        ArtifactError: It is damaged.
    """
    try:
        plain = json.loads(specs)
        information = compiler.ProgramInfo.deserialize(specs)
        (circuit,) = plain["circuits"]
        parameters = hashlib.sha256(json.dumps(plain["keyset"], sort_keys=True).encode()).hexdigest()
        size = _key_bytes(plain["keyset"])
        return Described(
            information, circuit["name"], circuit["inputs"], circuit["outputs"], parameters, size
        )
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        found = (str(error).strip().splitlines() or ["another structure"])[0]
        raise ArtifactError("this file is damaged", file="specs.json", found=found) from error


def _key_bytes(keyset: Any) -> int | None:
    """Bytes of the numbers of evaluation keys; a seed stands for the masks where they are compressed."""
    if keyset.get("packingKeyswitchKeys"):
        return None
    total = 0
    for key in keyset["lweBootstrapKeys"]:
        given = key["params"]
        rows = given["inputLweDimension"] * given["levelCount"] * (given["glweDimension"] + 1)
        columns = 1 if key["compression"] == "seed" else given["glweDimension"] + 1
        total += rows * columns * given["polynomialSize"] * WORD
    for key in keyset["lweKeyswitchKeys"]:
        given = key["params"]
        columns = 1 if key["compression"] == "seed" else given["outputLweDimension"] + 1
        total += given["inputLweDimension"] * given["levelCount"] * columns * WORD
    return total
