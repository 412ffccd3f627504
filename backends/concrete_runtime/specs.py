"""Concrete's description of a program: what a client must know of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from concrete import compiler

from ...ir.errors import ArtifactError


@dataclass(frozen=True)
class Described:
    """A description, read.

    Attributes:
        information: Concrete's own object.
        function: Name of the one function.
        inputs, outputs: What is said of each value that is encrypted, in order.
        parameters: A hash of the parameters of the keys: keys made for one circuit serve another of the same.
    """

    information: Any
    function: str
    inputs: list[Any]
    outputs: list[Any]
    parameters: str


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
        return Described(information, circuit["name"], circuit["inputs"], circuit["outputs"], parameters)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        found = (str(error).strip().splitlines() or ["another structure"])[0]
        raise ArtifactError("this file is damaged", file="specs.json", found=found) from error
