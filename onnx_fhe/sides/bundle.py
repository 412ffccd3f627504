"""Files with a header and parts that go between the two sides: halves, keys, ciphertexts, results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

from .. import archive
from ..ir.errors import ArtifactError
from .headers import Header, parse

HEADER = "header.json"
MAX_BYTES = 16 * 1024**3
"""Bytes of a file: a thousand samples of a large circuit, or the keys of the largest."""
MAX_PARTS = 1_000_000
"""Parts of a file, far more than the ciphertexts of a call."""
MAX_DEPTH = 4
"""Folders on the way to a part."""

H = TypeVar("H", bound=Header)
T = TypeVar("T")


@dataclass(frozen=True)
class Bundle(Generic[H]):
    """A header and its parts.

    Attributes:
        header: What the file says of itself; its ``parts`` are filled in when it is written.
        parts: Content by name.
    """

    header: H
    parts: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return archive.to_bytes(_form(type(self.header)), self._complete(), self.parts)

    def save(self, path: str | os.PathLike[str], *, private: bool = False) -> None:
        """Write the file, whole or not at all.

        Args:
            path: Where.
            private: Only the owner may read it.

        Raises:
            OutputError: ``path`` cannot be written.
        """
        archive.write(path, _form(type(self.header)), self._complete(), self.parts, private=private)

    def _complete(self) -> bytes:
        return replace(self.header, parts=archive.hashes(self.parts)).to_json()


def load(source: str | os.PathLike[str] | bytes, kind: type[H], needed: set[str] | None = None) -> Bundle[H]:
    """Read a file.

    Args:
        source: Its path, or its content.
        kind: What it has to be.
        needed: Parts that have to be there.

    Raises:
        ArtifactError: There is no such file, or it is another one, damaged, incomplete, or of a newer format.
    """
    form = _form(kind)
    try:
        content, parts = archive.read(source, form)
        header = parse(kind, content)
        archive.check_parts(form, header.parts, parts, needed or set(), "its header")
    except ArtifactError as error:
        if isinstance(source, bytes):
            raise
        raise error.located(file=str(source)) from error.__cause__
    return Bundle(header, parts)


def side_of(parts: Mapping[str, bytes], batch: int, read: Callable[[Path], T]) -> T:
    """One side of a circuit.

    Args:
        parts: The content of a half.
        batch: Samples of one call.
        read: Makes the side of a folder, which is gone afterwards.
    """
    start = f"circuits/{batch}/"
    with TemporaryDirectory(prefix="onnx-fhe-") as folder:
        for name, content in parts.items():
            if name.startswith(start):
                target = Path(folder) / name.removeprefix(start)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        return read(Path(folder))


def _form(kind: type[Header]) -> archive.Form:
    return archive.Form(
        noun=kind.KIND if "half" in kind.KIND else f"file of {kind.KIND}",
        short=f"the {kind.KIND}" if "half" in kind.KIND else f"the file of {kind.KIND}",
        header=HEADER,
        allowed=kind.KIND,
        do="copy the file again if it came over a network, or make it again",
        names="and its parts",
        holds=lambda name: len(PurePosixPath(name).parts) <= MAX_DEPTH,
        instead=f"give the {kind.KIND}: {kind.MAKER}",
        packed="half" in kind.KIND,
        max_files=MAX_PARTS,
        max_bytes=MAX_BYTES,
    )
