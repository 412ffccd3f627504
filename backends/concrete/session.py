"""The two sides of an encrypted run: a client that holds the keys, a server that computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from concrete import fhe

from ...ir.errors import DataError
from ...ir.runtime import Arrays
from ..base import Ciphertexts, EncryptedSession
from . import signals
from .plan import Port


def checked(ports: Sequence[Port], values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Samples of a call as int64 arrays in the circuit's order; Concrete itself accepts what does not fit.

    Raises:
        DataError: A name, shape or value that the circuit was not made for.
    """
    return [_checked(port, values) for port in ports]


def _checked(port: Port, values: Mapping[str, np.ndarray]) -> np.ndarray:
    if port.name not in values:
        raise DataError("a value to encrypt is missing", found=", ".join(values) or "none", allowed=port.name)
    array = np.asarray(values[port.name])
    if array.shape != port.shape:
        raise DataError(
            f"{port.name!r} has another shape than the circuit takes",
            found=str(array.shape),
            allowed=f"{port.shape} (a sample for each of the first axis)",
        )
    whole = np.rint(array)
    if array.dtype.kind not in "iufb" or not np.array_equal(array, whole):
        raise DataError(
            f"{port.name!r} is not an array of integers", found=str(array.dtype), allowed="integers"
        )
    low, high = int(whole.min(initial=port.low)), int(whole.max(initial=port.high))
    if low < port.low or high > port.high:
        raise DataError(
            f"{port.name!r} holds values out of range",
            found=f"{low} .. {high}",
            allowed=f"{port.low} .. {port.high}",
            do="clip them on the client, as the prologue of the model does",
        )
    return np.asarray(whole.astype(np.int64))


def listed(results: Any, ports: Sequence[Port]) -> list[Any]:
    """What Concrete returned, one for each port: it returns a tuple only where there are several."""
    return list(results) if len(ports) > 1 else [results]


def decrypted(port: Port, value: Any) -> np.ndarray:
    """What Concrete decrypted, as the model counts it."""
    return np.asarray(value, np.int64).reshape(port.shape) * port.unit


def _named(ports: Sequence[Port], values: Sequence[Any]) -> dict[str, Any]:
    return {p.name: v for p, v in zip(ports, values, strict=True)}


class ConcreteSession(EncryptedSession):
    """Client and server in one process.

    Args:
        specs: Concrete's client specifications.
        server: Concrete's server.
        alone: Returns the server of the same circuit that runs on one thread.
        inputs, outputs: Ports of the circuit.
    """

    def __init__(
        self,
        specs: Any,
        server: Any,
        alone: Callable[[], Any],
        inputs: Sequence[Port],
        outputs: Sequence[Port],
    ) -> None:
        self._client = fhe.Client(specs)
        self._server, self._alone = server, alone
        self._inputs, self._outputs = inputs, outputs
        self.batch = inputs[0].shape[0] if inputs else 1

    def keygen(self) -> None:
        """Make fresh keys from the operating system's randomness."""
        self._client.keygen(force=True)

    def encrypt(self, values: Mapping[str, np.ndarray]) -> Ciphertexts:
        """Encrypt the samples of a call; keys are made first where there are none."""
        found = self._client.encrypt(*checked(self._inputs, values))
        return _named(self._inputs, listed(found, self._inputs))

    def evaluate(self, ciphertexts: Ciphertexts) -> Ciphertexts:
        """Run the circuit on ciphertexts."""
        return self._run(self._server, ciphertexts)

    def evaluate_alone(self, ciphertexts: Ciphertexts) -> Ciphertexts:
        """Run the circuit without its parallel loops."""
        return self._run(self._alone(), ciphertexts)

    def _run(self, server: Any, ciphertexts: Ciphertexts) -> Ciphertexts:
        given = [ciphertexts[p.name] for p in self._inputs]
        with signals.kept():
            found = server.run(*given, evaluation_keys=self._client.evaluation_keys)
        return _named(self._outputs, listed(found, self._outputs))

    def decrypt(self, ciphertexts: Ciphertexts) -> Arrays:
        """Decrypt the results."""
        found = self._client.decrypt(*(ciphertexts[p.name] for p in self._outputs))
        return {
            p.name: decrypted(p, v) for p, v in zip(self._outputs, listed(found, self._outputs), strict=True)
        }

    def evaluation_keys(self) -> bytes:
        """The evaluation keys, serialized."""
        return bytes(self._client.evaluation_keys.serialize())
