"""Zip files that hold a header and parts: written in one step, and checked before anything in them is used.

The hashes find damage, not malice: whoever can change a part can change the header too.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from .ir.errors import ArtifactError
from .ir.paths import atomic_path

MAX_UNPACKED_BYTES = 2 * 1024**3
"""What a file may unpack to, where its kind sets nothing else."""
MAX_COMPRESSION_RATIO = 100
"""Most bytes that one byte of a file unpacks to; deflate can do a thousand."""
FREE_BYTES = 64 * 1024**2
"""A small file may unpack to this much whatever its ratio."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Form:
    """A kind of file.

    Attributes:
        noun: What it is, such as "artifact of onnx-fhe".
        short: What messages call it from then on, such as "the artifact".
        header: Name of the file inside that says what the others are.
        allowed: A file of this kind in words, for messages.
        do: What to do about a damaged one.
        names: Which other files it may hold, in words.
        holds: Whether a file of this name may be in it; names that lead elsewhere are refused before.
        instead: What to do about a file of another kind.
        packed: Whether parts are deflated; ciphertexts and keys are noise, which nothing makes smaller.
        max_files: Files that it may hold.
        max_bytes: Bytes that it may unpack to.
    """

    noun: str
    short: str
    header: str
    allowed: str
    do: str
    names: str
    holds: Callable[[str], bool]
    instead: str
    packed: bool = True
    max_files: int = 1000
    max_bytes: int = MAX_UNPACKED_BYTES

    @property
    def bare(self) -> str:
        """What messages call it, without its article."""
        return self.short.removeprefix("the ")


def write(
    path: str | os.PathLike[str],
    form: Form,
    header: bytes,
    parts: Mapping[str, bytes],
    *,
    private: bool = False,
) -> None:
    """Write a file in one step; the same content gives the same bytes.

    Args:
        path: Where.
        form: Its kind.
        header: Content of the header.
        parts: Content of every other file, by name.
        private: Only the owner may read it.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    with atomic_path(path, private=private) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _fill(archive, form, header, parts)


def to_bytes(form: Form, header: bytes, parts: Mapping[str, bytes]) -> bytes:
    """What ``write`` writes."""
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        _fill(archive, form, header, parts)
    return target.getvalue()


def _fill(archive: zipfile.ZipFile, form: Form, header: bytes, parts: Mapping[str, bytes]) -> None:
    for name, data in {form.header: header, **dict(sorted(parts.items()))}.items():
        entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        entry.external_attr = 0o644 << 16
        entry.compress_type = _method(data) if form.packed or name == form.header else zipfile.ZIP_STORED
        archive.writestr(entry, data)


def _method(data: bytes) -> int:
    """Deflate, but for what would look like a zip bomb to ``read``."""
    if len(data) > FREE_BYTES and len(zlib.compress(data, 1)) * MAX_COMPRESSION_RATIO < 2 * len(data):
        return zipfile.ZIP_STORED
    return zipfile.ZIP_DEFLATED


def hashes(parts: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each part, for the header."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(parts.items())}


def read(source: str | os.PathLike[str] | bytes, form: Form) -> tuple[bytes, dict[str, bytes]]:
    """Read a file; nothing is written anywhere, and the header's hashes are not looked at (``check_parts``).

    Args:
        source: Its path, or its content.
        form: Its kind.

    Returns:
        The header, and the content of every other file by its name.

    Raises:
        ArtifactError: There is no such file, or it is of another kind, or damaged, or too large.
    """
    with _opened(source, form) as (archive, size):
        entries = [e for e in archive.infolist() if not e.is_dir()]
        _check_entries(entries, size, form)
        content = {e.filename: archive.read(e) for e in entries}
    if form.header not in content:
        raise ArtifactError(
            f"this is no {form.noun}",
            found=f"a zip without {form.header}",
            allowed=form.allowed,
            do=form.instead,
        )
    return content.pop(form.header), content


@contextmanager
def _opened(source: str | os.PathLike[str] | bytes, form: Form) -> Iterator[tuple[zipfile.ZipFile, int]]:
    path = None if isinstance(source, bytes) else Path(source)
    try:
        if path is not None and path.exists() and not path.is_file():
            raise ArtifactError(f"{form.short} cannot be read: it is no regular file", allowed=form.allowed)
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        with zipfile.ZipFile(BytesIO(source) if isinstance(source, bytes) else Path(source)) as archive:
            yield archive, size
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no such {form.bare}", do="check the path") from error
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
            f"this is no {form.noun}, or it is damaged",
            found=str(error) or type(error).__name__,
            allowed=form.allowed,
            do=form.do if path is None or zipfile.is_zipfile(path) else form.instead,
        ) from error
    except OSError as error:
        raise ArtifactError(f"{form.short} cannot be read", found=error.strerror or str(error)) from error


def _check_entries(entries: list[zipfile.ZipInfo], size: int, form: Form) -> None:
    names = [e.filename for e in entries]
    if bad := next((n for n in names if not _is_safe(n, form)), None):
        raise ArtifactError(
            f"{form.short} holds a file with a name that no {form.bare} has",
            found=repr(bad),
            allowed=f"{form.header}, {form.names}",
        )
    if len(set(names)) != len(names):
        raise ArtifactError(f"{form.short} holds a file twice", found=", ".join(sorted(names)), do=form.do)
    if odd := next((e for e in entries if e.compress_type not in _METHODS), None):
        raise ArtifactError(
            f"{form.short} is packed in a way that no {form.bare} is",
            found=f"method {odd.compress_type} of {odd.filename}",
            do=form.do,
        )
    total = sum(e.file_size for e in entries)
    allowed = min(form.max_bytes, FREE_BYTES + MAX_COMPRESSION_RATIO * size)
    if total > allowed or len(entries) > form.max_files:
        raise ArtifactError(
            f"{form.short} unpacks to more than it should",
            found=f"{len(entries)} files, {total} bytes, from a file of {size} bytes",
            allowed=f"{form.max_files} files, {allowed} bytes",
        )


def _is_safe(name: str, form: Form) -> bool:
    path = PurePosixPath(name)
    if name != str(path) or "\\" in name or "\0" in name or path.is_absolute() or ".." in path.parts:
        return False
    return name == form.header or form.holds(name)


def check_parts(
    form: Form, wanted: Mapping[str, str], content: Mapping[str, bytes], needed: set[str], lister: str
) -> None:
    """Hold the parts of a file against the hashes that its header lists.

    Args:
        form: Its kind.
        wanted: SHA-256 by name.
        content: The parts.
        needed: Parts that have to be there, whatever the header says.
        lister: What lists them, in words.

    Raises:
        ArtifactError: A part is missing, or not listed, or another one.
    """
    if missing := sorted((needed | set(wanted)) - set(content)):
        raise ArtifactError(
            f"a part of {form.short} is missing", found=f"no {', '.join(missing)}", do=form.do
        )
    if extra := sorted(set(content) - set(wanted)):
        raise ArtifactError(f"{form.short} holds a file that {lister} does not list", found=", ".join(extra))
    for name, found in hashes(content).items():
        if found != wanted[name]:
            raise ArtifactError(
                f"a part of {form.short} is not what {lister} says",
                found=f"another hash of {name}",
                do=form.do,
            )
