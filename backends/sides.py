"""The two sides of an encrypted run, each alone: what holds the keys, and what computes.

Nothing here, nor in what it imports, needs the compiler: a client or a server is installed without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Progress = Callable[[str, int, int], None]
Ciphertexts = dict[str, Any]
"""Ciphertexts of one call by name; what they are is the backend's own affair."""


def quiet(what: str, done: int, total: int) -> None:
    """The default progress: none."""


class ClientSide(ABC):
    """Keys, encryption and decryption for one circuit.

    Attributes:
        batch: Samples of one call.
        parameters: The same wherever the same keys serve.
    """

    batch: int = 1
    parameters: str = ""

    @abstractmethod
    def check_security(self, level: int) -> None:
        """Refuse to make or take keys that are weaker than they are claimed to be.

        Args:
            level: Bits of security that the file claims.

        Raises:
            ArtifactError: They would be weaker.
        """

    @abstractmethod
    def keygen(self) -> None:
        """Make the secret and the evaluation keys, fresh ones every time."""

    @abstractmethod
    def secret_keys(self) -> bytes:
        """The secret keys, for a file that its owner alone reads."""

    @abstractmethod
    def use_secret_keys(self, content: bytes) -> None:
        """Take what ``secret_keys`` returned.

        Raises:
            ArtifactError: It is damaged, or the keys fit another circuit.
        """

    @abstractmethod
    def evaluation_keys(self) -> bytes:
        """The keys that a server needs; they hold no secret key."""

    @abstractmethod
    def encrypt(self, values: Mapping[str, np.ndarray]) -> Ciphertexts:
        """Encrypt the samples of one call.

        Args:
            values: Integers by name, with a first axis of ``batch``.

        Raises:
            DataError: A name, shape or value that the circuit was not made for.
        """

    @abstractmethod
    def decrypt(self, ciphertexts: Ciphertexts) -> dict[str, np.ndarray]:
        """Decrypt what a server returned: int64 arrays by output name."""

    @abstractmethod
    def dump(self, ciphertexts: Ciphertexts) -> dict[str, bytes]:
        """Ciphertexts as bytes."""

    @abstractmethod
    def parse(self, content: Mapping[str, bytes]) -> Ciphertexts:
        """The ciphertexts of results.

        Raises:
            DataError: One is missing, or damaged.
        """


class ServerSide(ABC):
    """Evaluation of one circuit, with the evaluation keys of whoever asks.

    Attributes:
        batch: Samples of one call.
    """

    batch: int = 1

    @abstractmethod
    def prepare(self, *, alone: bool = False) -> None:
        """Make the circuit ready to run, which takes seconds; else the first evaluation does.

        Args:
            alone: As ``evaluate`` will be called.
        """

    @abstractmethod
    def parse_keys(self, content: bytes) -> Any:
        """Evaluation keys as ``evaluate`` takes them.

        Raises:
            DataError: They are none, or damaged.
        """

    @abstractmethod
    def evaluate(self, keys: Any, ciphertexts: Ciphertexts, *, alone: bool = False) -> Ciphertexts:
        """Compute on ciphertexts.

        Args:
            keys: What ``parse_keys`` returned. The first use makes them ready, which no two threads may do at
                once.
            ciphertexts: The ciphertexts of one call, by input name.
            alone: On the calling thread only, so that several threads may do so at the same time.
        """

    @abstractmethod
    def dump(self, ciphertexts: Ciphertexts) -> dict[str, bytes]:
        """Ciphertexts as bytes."""

    @abstractmethod
    def parse(self, content: Mapping[str, bytes]) -> Ciphertexts:
        """The ciphertexts of inputs.

        Raises:
            DataError: One is missing, too many are there, or one is damaged.
        """


@dataclass(frozen=True)
class Sides:
    """How the sides of a backend's circuits are read from the files of one side.

    Attributes:
        client, server: Make a side of the folder that ``Circuit.save`` wrote, of which the client needs
            ``client/`` alone.
    """

    client: Callable[[Path], ClientSide]
    server: Callable[[Path], ServerSide]
