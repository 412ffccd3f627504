"""Encrypted inputs and results, as they go from one side to the other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..ir.errors import ArtifactError
from .bundle import Bundle, load
from .headers import CiphertextsHeader, ResultsHeader

C = TypeVar("C", bound="Ciphertexts")
Call = Mapping[str, bytes]
"""The values of one call, by name."""


@dataclass(frozen=True)
class Ciphertexts:
    """Encrypted inputs.

    Attributes:
        header: What they are for.
        calls: What the circuit takes in each call.
    """

    header: CiphertextsHeader
    calls: tuple[Call, ...]

    KIND = CiphertextsHeader

    @classmethod
    def load(cls: type[C], source: str | os.PathLike[str] | bytes) -> C:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: It is no such file, damaged or incomplete.
        """
        bundle = load(source, cls.KIND)
        header, parts = bundle.header, bundle.parts
        calls = -(-header.samples // max(header.batch, 1))
        count = calls * len(header.names)
        # The numbers first: whoever wrote them may say that there are very many.
        whole = header.samples >= 1 and header.batch >= 1 and count >= 1 and count == len(parts)
        if not whole or any(part(i, k) not in parts for i in range(calls) for k in range(len(header.names))):
            raise ArtifactError(
                f"the file of {header.KIND} does not hold what it says",
                file="" if isinstance(source, bytes) else str(source),
                found=f"{len(parts)} ciphertexts",
                allowed=f"{count}: {header.samples} samples of {len(header.names)} values",
                do="have it made again",
            )
        read = [{n: parts[part(i, k)] for k, n in enumerate(header.names)} for i in range(calls)]
        return cls(header, tuple(read))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them, whole or not at all.

        Raises:
            OutputError: ``path`` cannot be written.
        """
        self._bundle().save(path)

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return self._bundle().to_bytes()

    @property
    def samples(self) -> int:
        """Samples of all calls."""
        return self.header.samples

    def _bundle(self) -> Bundle[CiphertextsHeader]:
        parts = {
            part(i, k): call[name]
            for i, call in enumerate(self.calls)
            for k, name in enumerate(self.header.names)
        }
        return Bundle(self.header, parts)


@dataclass(frozen=True)
class EncryptedResults(Ciphertexts):
    """Encrypted results; the attributes are those of ``Ciphertexts``."""

    KIND = ResultsHeader

    @classmethod
    def of(cls, asked: CiphertextsHeader, calls: Sequence[Call]) -> EncryptedResults:
        """The results of what was asked."""
        known = {k: v for k, v in vars(replace(asked, parts={})).items() if k not in ("kind", "names")}
        return cls(ResultsHeader(names=tuple(calls[0]), **known), tuple(calls))


def part(call: int, value: int) -> str:
    """Name of the file that holds a value of a call."""
    return f"calls/{call}/{value}"
