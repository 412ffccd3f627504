"""Writing files so that a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well and vanishes otherwise.

    Args:
        path: Where the result shall be; a symbolic link is followed.
        private: Only the owner may read the result (secret keys); else the umask decides.

    Yields:
        The path to write to; an empty file is already there.

    Raises:
        OutputError: The folder is missing or cannot be written, or ``path`` is no ordinary file.
    """
    target = Path(os.path.realpath(path))
    _check(Path(path), target)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".part")
    except OSError as error:
        raise _cannot(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o600 if private else 0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        if error.errno in _FULL or error.filename == name:
            raise _cannot(path, error) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` in one go.

    Raises:
        OutputError: see ``atomic_path``.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _check(path: Path, target: Path) -> None:
    # Looked at beforehand, because a rename would happily replace a device or an unwritable file.
    allowed = "a file name in a folder that exists and can be written"
    try:
        is_folder, exists, is_file = target.is_dir(), target.exists(), target.is_file()
        has_folder = target.parent.is_dir()
    except OSError as error:
        raise _cannot(path, error) from error
    if is_folder:
        raise OutputError(
            "cannot write the output", file=str(path), found="a folder of that name", allowed=allowed
        )
    if exists and not is_file:
        raise OutputError(
            "cannot write the output", file=str(path), found="not a regular file", allowed=allowed
        )
    if exists and not os.access(target, os.W_OK):
        raise OutputError(
            "cannot write the output", file=str(path), found="a read-only file", allowed=allowed
        )
    if not has_folder:
        raise OutputError(
            "cannot write the output",
            file=str(path),
            found=f"no folder {str(path.parent)!r}",
            allowed=allowed,
            do="create the folder first, or give another path",
        )


def _cannot(path: str | os.PathLike[str], error: OSError) -> OutputError:
    return OutputError("cannot write the output", file=str(path), found=error.strerror or str(error))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
