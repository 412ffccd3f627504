"""The client of a circuit: it makes keys, encrypts and decrypts, and never computes on ciphertexts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from concrete import compiler

from ...ir.errors import ArtifactError, UserError
from ..sides import Ciphertexts, ClientSide
from . import security
from . import values as sent
from .specs import described
from .store import Ports, read_client


class ConcreteClient(ClientSide):
    """Keys, encryption and decryption.

    Args:
        specs: Concrete's description of the program, as ``library.specs_of`` returns it.
        ports: The circuit's interface.
    """

    def __init__(self, specs: bytes, ports: Ports) -> None:
        found = described(specs)
        self._information, self._function, self._outputs = found.information, found.function, found.outputs
        self.parameters = found.parameters
        self._ports, self._specs = ports, specs
        self._keys: Any = None
        self._evaluation: Any = None
        self._circuit: Any = None
        self.batch = ports.inputs[0].shape[0]

    @classmethod
    def read(cls, folder: Path) -> ConcreteClient:
        """The client that the files in ``client/`` of ``folder`` make.

        Raises:
            ArtifactError: A file is missing, damaged or of another format.
        """
        return cls(*read_client(folder))

    @property
    def has_keys(self) -> bool:
        """Whether keys were made or loaded."""
        return self._keys is not None

    def check_security(self, level: int) -> None:
        """Hold the noise of everything that is encrypted against Concrete's curve; see ``ClientSide``."""
        security.check(self._specs, level)

    def keygen(self) -> None:
        """Make fresh keys; seeds of 0 stand for the operating system's randomness."""
        self._use(compiler.Keyset(self._information, None, 0, 0, 0, 0, None))

    def secret_keys(self) -> bytes:
        """The secret keys, with the evaluation keys that were made of them."""
        return bytes(self._known().serialize())

    def use_secret_keys(self, content: bytes) -> None:
        """Take what ``secret_keys`` returned; see ``ClientSide``."""
        try:
            self._use(compiler.Keyset.deserialize(content))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ArtifactError(
                "the secret keys are damaged, or of another circuit", found=sent.first_line(error)
            ) from error

    def evaluation_keys(self) -> bytes:
        """The evaluation keys, serialized."""
        return bytes(self.evaluation_key_set().serialize())

    def evaluation_key_set(self) -> Any:
        """The evaluation keys, for a server in this process."""
        self._known()
        return self._evaluation

    def encrypt(self, values: Mapping[str, np.ndarray]) -> Ciphertexts:
        """Encrypt the samples of a call; see ``ClientSide``."""
        self._known()
        given = sent.checked(self._ports.inputs, values)
        made = [self._circuit.prepare_input(compiler.Value(v), i) for i, v in enumerate(given)]
        return sent.named(self._ports.inputs, made)

    def decrypt(self, ciphertexts: Ciphertexts) -> dict[str, np.ndarray]:
        """Decrypt the results; see ``ClientSide``."""
        self._known()
        return {
            p.name: sent.decrypted(p, self._circuit.process_output(ciphertexts[p.name], i).to_py_val())
            for i, p in enumerate(self._ports.outputs)
        }

    def dump(self, ciphertexts: Ciphertexts) -> dict[str, bytes]:
        """Ciphertexts as bytes."""
        return sent.dump(ciphertexts)

    def parse(self, content: Mapping[str, bytes]) -> Ciphertexts:
        """The ciphertexts of results; see ``ClientSide``."""
        return sent.parse(self._ports.outputs, content, self._outputs)

    def _use(self, keys: Any) -> None:
        program = compiler.ClientProgram.create_encrypted(self._information, keys)
        self._keys, self._circuit = keys, program.get_client_circuit(self._function)
        self._evaluation = keys.get_server_keys()
        # What is made of a program does not hold it.
        self._kept = program

    def _known(self) -> Any:
        if self._keys is None:
            raise UserError(
                "there are no keys yet", do="make them first (keygen), or load those that were made"
            )
        return self._keys
