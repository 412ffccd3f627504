"""The two sides of an encrypted run in one process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...ir.batch_runner import Arrays
from ..base import EncryptedSession
from ..concrete_runtime.client import ConcreteClient
from ..concrete_runtime.server import ConcreteServer
from ..sides import Ciphertexts


class ConcreteSession(EncryptedSession):
    """Client and server in one process: ciphertexts and keys go from one to the other as they are.

    Args:
        client, server: The two sides of one circuit.
    """

    def __init__(self, client: ConcreteClient, server: ConcreteServer) -> None:
        self._client, self._server = client, server
        self.batch = client.batch

    def keygen(self) -> None:
        """Make fresh keys from the operating system's randomness."""
        self._client.keygen()

    def encrypt(self, values: Mapping[str, np.ndarray]) -> Ciphertexts:
        """Encrypt the samples of a call; keys are made first where there are none."""
        if not self._client.has_keys:
            self._client.keygen()
        return self._client.encrypt(values)

    def evaluate(self, ciphertexts: Ciphertexts) -> Ciphertexts:
        """Run the circuit on ciphertexts."""
        return self._server.evaluate(self._client.evaluation_key_set(), ciphertexts)

    def evaluate_alone(self, ciphertexts: Ciphertexts) -> Ciphertexts:
        """Run the circuit without its parallel loops."""
        return self._server.evaluate(self._client.evaluation_key_set(), ciphertexts, alone=True)

    def decrypt(self, ciphertexts: Ciphertexts) -> Arrays:
        """Decrypt the results."""
        return self._client.decrypt(ciphertexts)

    def evaluation_keys(self) -> bytes:
        """The evaluation keys, serialized."""
        return self._client.evaluation_keys()
