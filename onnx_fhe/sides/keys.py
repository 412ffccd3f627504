"""Secret keys in a folder that only their owner reads, and evaluation keys, which a server gets."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from ..ir.errors import ArtifactError, OutputError
from .bundle import Bundle, load
from .headers import EvaluationKeysHeader, SecretKeysHeader

CONTENT = "keys"
"""Name of the one part of a file of keys."""


@dataclass(frozen=True)
class EvaluationKeys:
    """What a server needs to compute; it reveals nothing of what is encrypted.

    Attributes:
        id: Their identity: a hash of the pair and the content. Ciphertexts and results name it.
        parameters: What they serve.
        content: The keys.
        pair: A random number of the pair of secret and evaluation keys: a circuit without table lookups needs
            no evaluation keys, and its clients are told apart all the same.
    """

    id: str
    parameters: str
    content: bytes
    pair: str = ""

    @classmethod
    def of(cls, parameters: str, content: bytes, pair: str = "") -> EvaluationKeys:
        """Keys with the identity that their pair and content have."""
        return cls(identity(pair, content), parameters, content, pair)

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes) -> EvaluationKeys:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: It is no such file, or damaged, or holds other keys than it says.
        """
        bundle = load(source, EvaluationKeysHeader, {CONTENT})
        keys = cls.of(bundle.header.parameters, bundle.parts[CONTENT], bundle.header.pair)
        if keys.id != bundle.header.keys:
            raise ArtifactError(
                "the file of evaluation keys holds other keys than it says",
                file="" if isinstance(source, bytes) else str(source),
                do="have them made again (keygen)",
            )
        return keys

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them, whole or not at all.

        Raises:
            OutputError: ``path`` cannot be written.
        """
        self._bundle().save(path)

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return self._bundle().to_bytes()

    def _bundle(self) -> Bundle[EvaluationKeysHeader]:
        header = EvaluationKeysHeader(parameters=self.parameters, keys=self.id, pair=self.pair)
        return Bundle(header, {CONTENT: self.content})


@dataclass(frozen=True)
class SecretKeys:
    """What its owner alone may have.

    Attributes:
        id, pair: As in ``EvaluationKeys``.
        content: The keys.
    """

    id: str
    pair: str
    content: bytes


def identity(pair: str, evaluation_keys: bytes) -> str:
    """The identity of a pair of keys."""
    return hashlib.sha256(pair.encode() + b"\n" + evaluation_keys).hexdigest()


def new_pair() -> str:
    """A random number for a new pair of keys."""
    return secrets.token_hex(16)


def secret_file(folder: str | os.PathLike[str], parameters: str) -> Path:
    """Where the secret keys for these parameters lie in a folder of keys."""
    return Path(folder) / f"{parameters[:16]}.secret"


def save_secret(folder: str | os.PathLike[str], parameters: str, keys: SecretKeys) -> Path:
    """Write secret keys into a folder that its owner alone may enter; it is made where it is missing.

    Raises:
        OutputError: It cannot be made or written, or others may read it.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        others = stat.S_IMODE(place.stat().st_mode) & 0o077
    except OSError as error:
        raise OutputError(
            "the folder of keys cannot be made", file=str(place), found=error.strerror or str(error)
        ) from error
    if others:
        raise OutputError(
            "others may enter the folder of keys",
            file=str(place),
            found=f"mode {stat.S_IMODE(place.stat().st_mode):o}",
            allowed="700",
            do=f"chmod 700 {place}, or give another folder",
        )
    file = secret_file(place, parameters)
    header = SecretKeysHeader(parameters=parameters, keys=keys.id, pair=keys.pair)
    Bundle(header, {CONTENT: keys.content}).save(file, private=True)
    return file


def load_secret(folder: str | os.PathLike[str], parameters: str) -> SecretKeys:
    """The secret keys for these parameters.

    Raises:
        ArtifactError: There are none, or they are damaged.
    """
    file = secret_file(folder, parameters)
    if not file.exists():
        raise ArtifactError(
            "there are no secret keys for this circuit in the folder",
            file=str(folder),
            found=", ".join(sorted(f.name for f in Path(folder).glob("*.secret"))) or "no keys",
            allowed=file.name,
            do="make them with `onnx-fhe keygen`, or give the folder that has them",
        )
    bundle = load(file, SecretKeysHeader, {CONTENT})
    return SecretKeys(bundle.header.keys, bundle.header.pair, bundle.parts[CONTENT])
