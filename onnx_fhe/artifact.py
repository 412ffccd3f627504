"""The file ``model.fhe``: one zip with a manifest, the client's part, the server's part, the integer model.

    manifest.json
    integer.onnx           the integer model, whole
    client/prologue.onnx   inputs to integers
    client/epilogue.onnx   decrypted integers to outputs
    client/...             what the backend's client needs
    server/...             the circuit: with evaluation keys, all that a server needs

The hashes find damage, not malice: whoever can change the file can change its manifest too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePosixPath

from . import archive
from .ir.errors import ArtifactError
from .manifest import Manifest, from_json

MANIFEST = "manifest.json"
INTEGER = "integer.onnx"
PROLOGUE = "client/prologue.onnx"
EPILOGUE = "client/epilogue.onnx"
FOLDERS = ("client", "server")


def _holds(name: str) -> bool:
    path = PurePosixPath(name)
    return name == INTEGER or (len(path.parts) > 1 and path.parts[0] in FOLDERS)


_FORM = archive.Form(
    noun="artifact of onnx-fhe",
    short="the artifact",
    header=MANIFEST,
    allowed="a file that `onnx-fhe compile` wrote",
    do="copy the file again if it came over a network, or compile the model again",
    names=f"{INTEGER}, and files in {' and '.join(FOLDERS)}",
    holds=_holds,
    instead="compile the model first, and give the .fhe file",
)


def write(path: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write an artifact in one step; the same content gives the same bytes.

    Returns:
        The manifest with the hashes of ``files``.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    manifest = replace(manifest, parts=archive.hashes(files))
    archive.write(path, _FORM, manifest.to_json(), files)
    return manifest


def read(path: str | os.PathLike[str]) -> tuple[Manifest, dict[str, bytes]]:
    """Read and check an artifact; nothing is written anywhere.

    Returns:
        The manifest, and the content of every other file by its name.

    Raises:
        ArtifactError: There is no such file, or it is no artifact, damaged, incomplete, or of a newer format.
    """
    try:
        header, content = archive.read(path, _FORM)
        manifest = from_json(header)
        needed = {INTEGER, PROLOGUE, EPILOGUE}
        archive.check_parts(_FORM, manifest.parts, content, needed, "its manifest")
    except ArtifactError as error:
        raise error.located(file=str(path)) from error.__cause__
    return manifest, content


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest alone, after the checks of ``read``."""
    return read(path)[0]


def is_artifact(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` looks like an artifact: by its name, or by how a zip begins."""
    if Path(path).suffix == ".fhe":
        return True
    try:
        # A pipe would wait for somebody to write to it.
        with Path(path).open("rb") if Path(path).is_file() else contextlib.nullcontext(BytesIO()) as file:
            return file.read(4) == b"PK\x03\x04"
    except (OSError, ValueError):
        return False
