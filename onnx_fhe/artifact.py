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
import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePosixPath

from .ir.errors import ArtifactError
from .ir.paths import atomic_path
from .manifest import Manifest, from_json

MANIFEST = "manifest.json"
INTEGER = "integer.onnx"
PROLOGUE = "client/prologue.onnx"
EPILOGUE = "client/epilogue.onnx"
FOLDERS = ("client", "server")

MAX_ARTIFACT_BYTES = 2 * 1024**3
"""What an artifact may unpack to, whatever its size."""
MAX_ARTIFACT_FILES = 1000
"""Files in an artifact; those that are written here have about ten."""
MAX_COMPRESSION_RATIO = 100
"""How many times its own size an artifact may unpack to, besides ``FREE_BYTES``."""
FREE_BYTES = 64 * 1024**2
"""A small artifact may unpack to this much whatever its ratio."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_AGAIN = "copy the file again if it came over a network, or compile the model again"


def write(path: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Write an artifact in one step; the same content gives the same bytes.

    Returns:
        The manifest with the hashes of ``files``.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    manifest = replace(manifest, parts={n: _sha256(c) for n, c in sorted(files.items())})
    content = {MANIFEST: manifest.to_json(), **dict(sorted(files.items()))}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = _method(data)
            archive.writestr(entry, data)
    return manifest


def _method(data: bytes) -> int:
    """Deflate, but for what would look like a zip bomb to ``read``."""
    if len(data) > FREE_BYTES and len(zlib.compress(data, 1)) * MAX_COMPRESSION_RATIO < 2 * len(data):
        return zipfile.ZIP_STORED
    return zipfile.ZIP_DEFLATED


def read(path: str | os.PathLike[str]) -> tuple[Manifest, dict[str, bytes]]:
    """Read and check an artifact; nothing is written anywhere.

    Returns:
        The manifest, and the content of every other file by its name.

    Raises:
        ArtifactError: There is no such file, or it is no artifact, damaged, incomplete, or of a newer format.
    """
    try:
        return _read(Path(path))
    except ArtifactError as error:
        raise error.located(file=str(path)) from error.__cause__


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


def _read(path: Path) -> tuple[Manifest, dict[str, bytes]]:
    try:
        if path.exists() and not path.is_file():
            raise ArtifactError(
                "the artifact cannot be read: it is no regular file",
                allowed="a file that `onnx-fhe compile` wrote",
            )
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir()]
            _check_entries(entries, path.stat().st_size)
            content = {e.filename: archive.read(e) for e in entries}
    except FileNotFoundError as error:
        raise ArtifactError("there is no such artifact", do="check the path") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        struct.error,
        ArithmeticError,
        ValueError,
        RuntimeError,
    ) as error:
        raise ArtifactError(
            "this is no artifact of onnx-fhe, or it is damaged",
            found=str(error) or type(error).__name__,
            allowed="a file that `onnx-fhe compile` wrote",
            do=_AGAIN if zipfile.is_zipfile(path) else "compile the model first, and give the .fhe file",
        ) from error
    except OSError as error:
        raise ArtifactError("the artifact cannot be read", found=error.strerror or str(error)) from error
    if MANIFEST not in content:
        raise ArtifactError(
            "this is no artifact of onnx-fhe",
            found=f"a zip without {MANIFEST}",
            allowed="a file that `onnx-fhe compile` wrote",
        )
    manifest = from_json(content.pop(MANIFEST))
    _check_parts(manifest, content)
    return manifest, content


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    names = [e.filename for e in entries]
    if bad := next((n for n in names if not _is_safe(n)), None):
        raise ArtifactError(
            "the artifact holds a file with a name that no artifact has",
            found=repr(bad),
            allowed=f"{MANIFEST}, {INTEGER}, and files in {' and '.join(FOLDERS)}",
        )
    if len(set(names)) != len(names):
        raise ArtifactError("the artifact holds a file twice", found=", ".join(sorted(names)), do=_AGAIN)
    if odd := next((e for e in entries if e.compress_type not in _METHODS), None):
        raise ArtifactError(
            "the artifact is packed in a way that no artifact is",
            found=f"method {odd.compress_type} of {odd.filename}",
            do=_AGAIN,
        )
    total = sum(e.file_size for e in entries)
    allowed = min(MAX_ARTIFACT_BYTES, FREE_BYTES + MAX_COMPRESSION_RATIO * size)
    if total > allowed or len(entries) > MAX_ARTIFACT_FILES:
        raise ArtifactError(
            "the artifact unpacks to more than an artifact should",
            found=f"{len(entries)} files, {total} bytes, from a file of {size} bytes",
            allowed=f"{MAX_ARTIFACT_FILES} files, {allowed} bytes",
        )


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    if name != str(path) or "\\" in name or "\0" in name or path.is_absolute() or ".." in path.parts:
        return False
    return name in (MANIFEST, INTEGER) or (len(path.parts) > 1 and path.parts[0] in FOLDERS)


def _check_parts(manifest: Manifest, content: Mapping[str, bytes]) -> None:
    needed = {*manifest.parts, INTEGER, PROLOGUE, EPILOGUE}
    if missing := sorted(needed - set(content)):
        raise ArtifactError("a part of the artifact is missing", found=f"no {', '.join(missing)}", do=_AGAIN)
    if extra := sorted(set(content) - set(manifest.parts)):
        raise ArtifactError(
            "the artifact holds a file that its manifest does not list", found=", ".join(extra)
        )
    for name, wanted in manifest.parts.items():
        if _sha256(content[name]) != wanted:
            raise ArtifactError(
                "a part of the artifact is not what its manifest says",
                found=f"another hash of {name}",
                do=_AGAIN,
            )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
