"""The evaluation keys of all clients, on disk: each sees its own, and they survive a restart."""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..ir.errors import ArtifactError, OutputError, UserError
from ..sides.headers import EvaluationKeysHeader
from ..sides.keys import EvaluationKeys
from .ages import DAY, Ages
from .heads import MAX_HEADER, header_of
from .refusals import Refusal, too_large
from .settings import Settings

UPLOADS, KEYS, LOCK = "uploads", "keys", "lock"
ENDING = ".keys"


@dataclass(frozen=True)
class Kept:
    """Keys in the store.

    Attributes:
        owner: Name of the client.
        id: Their identity.
        parameters: What they serve.
        bytes: Bytes of the file.
        path: The file.
    """

    owner: str
    id: str
    parameters: str
    bytes: int
    path: Path

    @property
    def name(self) -> str:
        """What tells them from all others."""
        return f"{self.owner}/{self.id}"


class KeyStore:
    """Evaluation keys in a folder.

    Args:
        settings: The folder, and what is allowed.

    Raises:
        UserError: Another service uses the folder.
        OutputError: It cannot be written.
    """

    def __init__(self, settings: Settings) -> None:
        self._limits, self._evict = settings.limits, settings.evict
        self._folder = settings.store
        self._guard = threading.RLock()
        try:
            for name in (UPLOADS, KEYS):
                (self._folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _locked(self._folder / LOCK)
            for left in (self._folder / UPLOADS).iterdir():
                left.unlink()
        except OSError as error:
            raise OutputError(
                "the store of keys cannot be written",
                file=str(self._folder),
                found=error.strerror or str(error),
                do="give a folder of this user's own with --store",
            ) from error
        self._ages = Ages(self._folder)
        self._kept = {k.name: k for k in map(_read, sorted((self._folder / KEYS).glob(f"*/*{ENDING}"))) if k}

    def close(self) -> None:
        """Write the ages, and leave the folder to another service."""
        self._ages.save(at_once=True)
        self._lock.close()

    @property
    def count(self) -> int:
        """Keys in the store."""
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Bytes of all keys."""
        with self._guard:
            return sum(k.bytes for k in self._kept.values())

    def of(self, owner: str) -> list[Kept]:
        """The keys of a client."""
        with self._guard:
            return [k for k in self._kept.values() if k.owner == owner]

    def find(self, owner: str, identity: str) -> Kept:
        """Keys of a client, which count as used.

        Raises:
            Refusal: It has no such keys.
        """
        self.expire()
        with self._guard:
            name = f"{owner}/{identity}"
            if name not in self._kept:
                raise unknown_keys(identity)
            self._ages.touch(name)
            return self._kept[name]

    def upload_path(self, request: str) -> Path:
        """Where an upload goes until it is checked."""
        return self._folder / UPLOADS / request

    def check_room(self, owner: str, size: int) -> None:
        """Refuse keys for which there is no room.

        Raises:
            Refusal: The client's share is used up; or all is, and no keys make room for others.
        """
        with self._guard:
            own = sum(k.bytes for k in self.of(owner))
            if own + size > self._limits.client_keys_bytes:
                raise too_large(
                    "your keys are larger than all keys of a client may be",
                    found=f"{own + size} bytes",
                    allowed=f"{self._limits.client_keys_bytes} bytes",
                    do="delete keys that you do not need: DELETE /keys/ID",
                )
            if self.bytes + size > self._limits.keys_bytes and not self._evict:
                raise too_large(
                    "the service keeps as many keys as it may",
                    found=f"{self.bytes + size} bytes",
                    allowed=f"{self._limits.keys_bytes} bytes",
                    do="ask its operator for more room (--max-keys-bytes, or --evict-keys)",
                )

    def add(self, owner: str, keys: EvaluationKeys, upload: Path) -> Kept:
        """Take a file that was uploaded and checked; when this returns it is on the disk.

        Raises:
            Refusal: There is no room.
            OSError: It cannot be written.
        """
        size = upload.stat().st_size
        folder = self._folder / KEYS / owner
        with upload.open("rb") as file:
            os.fsync(file.fileno())
        with self._guard:
            self.check_room(owner, size)
            while self.bytes + size > self._limits.keys_bytes:
                if not self._kept:
                    raise too_large(
                        "these keys are larger than all keys may be",
                        found=f"{size} bytes",
                        allowed=f"{self._limits.keys_bytes} bytes",
                        do="ask the service's operator for more room (--max-keys-bytes)",
                    )
                self._remove(max(self._kept.values(), key=lambda k: self._ages.of(k.name)))
            folder.mkdir(exist_ok=True, mode=0o700)
            path = folder / f"{keys.id}{ENDING}"
            upload.replace(path)
            _sync(folder)
            made = Kept(owner, keys.id, keys.parameters, size, path)
            self._kept[made.name] = made
            self._ages.touch(made.name)
            self._ages.save(at_once=True)
            return made

    def remove(self, owner: str, identity: str) -> None:
        """Remove keys of a client.

        Raises:
            Refusal: It has no such keys.
        """
        with self._guard:
            name = f"{owner}/{identity}"
            if name not in self._kept:
                raise unknown_keys(identity)
            self._remove(self._kept[name])

    def expire(self) -> None:
        """Remove the keys that nobody has used for too long."""
        with self._guard:
            for kept in list(self._kept.values()):
                if self._ages.of(kept.name) > self._limits.keys_days * DAY:
                    self._remove(kept)
            self._ages.save()

    def _remove(self, kept: Kept) -> None:
        del self._kept[kept.name]
        self._ages.forget(kept.name)
        with suppress(OSError):
            kept.path.unlink()


def unknown_keys(identity: str) -> Refusal:
    """There are no such keys, or they are another client's, which is the same to whoever asks."""
    return Refusal(
        404,
        "unknown-keys",
        "the service does not have these evaluation keys of yours",
        found=identity[:16],
        do="upload them: PUT /keys/ID",
    )


def _read(path: Path) -> Kept | None:
    """Keys that an earlier service kept; what is no such file is left alone."""
    with suppress(OSError, ArtifactError):
        with path.open("rb") as file:
            header = header_of(file.read(MAX_HEADER), EvaluationKeysHeader)
        if header is not None and header.keys == path.stem:
            return Kept(path.parent.name, path.stem, header.parameters, path.stat().st_size, path)
    return None


def _locked(path: Path) -> IO[bytes]:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(
            "another service uses this store of keys",
            file=str(path.parent),
            do="stop it, or give another folder with --store",
        ) from error
    return file


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
