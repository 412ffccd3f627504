"""The server of a circuit: it computes on ciphertexts, with evaluation keys and no secret key."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from concrete import compiler

from ...ir.errors import ArtifactError, DataError
from ..sides import Ciphertexts, ServerSide
from . import signals
from . import values as sent
from .cache import cached_library
from .library import Compiled, compile_library, specs_of
from .specs import KEY_FRAME, MAX_KEYS, described
from .store import Stored, read

Maker = Callable[..., Compiled]


class ConcreteServer(ServerSide):
    """Evaluation on all cores, or on the calling thread alone.

    Args:
        stored: The circuit.
        make: Compiles its program (``library.compile_library`` or what remembers what that made).
    """

    def __init__(self, stored: Stored, make: Maker = compile_library) -> None:
        self._stored, self._make = stored, make
        found = described(stored.specs)
        self._inputs, self._key_bytes = found.inputs, found.key_bytes
        self._compiled: dict[bool, Compiled] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self.batch = stored.ports.inputs[0].shape[0]

    @classmethod
    def read(cls, folder: Path) -> ConcreteServer:
        """The server of the circuit that ``folder`` holds.

        Raises:
            ArtifactError: A file is missing, damaged or of another format.
        """
        return cls(read(folder), cached_library)

    def prepare(self, *, alone: bool = False) -> None:
        """Compile the program, or take it from the cache; see ``ServerSide``."""
        self._of(self._is_parallel(alone))

    def parse_keys(self, content: bytes) -> Any:
        """Evaluation keys; see ``ServerSide``."""
        wanted, size = self._key_bytes, len(content)
        # The runtime reads past the end of keys that are smaller than its circuit's.
        if wanted is not None and not wanted <= size <= wanted + KEY_FRAME * MAX_KEYS:
            raise DataError(
                "these are not evaluation keys for this circuit, or they are damaged",
                found=f"{size} bytes",
                allowed=f"about {wanted} bytes",
            )
        try:
            return compiler.ServerKeyset.deserialize(content)
        except (RuntimeError, ValueError, TypeError) as error:
            raise DataError(
                "these are no evaluation keys, or they are damaged", found=sent.first_line(error)
            ) from error

    def evaluate(self, keys: Any, ciphertexts: Ciphertexts, *, alone: bool = False) -> Ciphertexts:
        """Run the circuit on ciphertexts; see ``ServerSide``."""
        circuit = self._circuit(self._is_parallel(alone))
        given = [ciphertexts[p.name] for p in self._stored.ports.inputs]
        with signals.kept():
            found = circuit.call(given, keys)
        return sent.named(self._stored.ports.outputs, found)

    def dump(self, ciphertexts: Ciphertexts) -> dict[str, bytes]:
        """Ciphertexts as bytes."""
        return sent.dump(ciphertexts)

    def parse(self, content: Mapping[str, bytes]) -> Ciphertexts:
        """The ciphertexts of inputs; see ``ServerSide``."""
        return sent.parse(self._stored.ports.inputs, content, self._inputs)

    def _is_parallel(self, alone: bool) -> bool:
        # Without such loops both programs are the same.
        return not alone or not self._stored.program.settings.loop_parallelize

    def _of(self, parallel: bool) -> Compiled:
        with self._lock:
            if parallel not in self._compiled:
                made = self._make(self._stored.mlir, self._stored.program.settings, parallel=parallel)
                # Another version of Concrete may choose other parameters, which no key would fit.
                if json.loads(specs_of(made.information)) != json.loads(self._stored.specs):
                    raise ArtifactError(
                        "this version of Concrete chooses other parameters for the circuit than the one that"
                        " made it",
                        do="compile the model again",
                    )
                self._compiled[parallel] = made
            return self._compiled[parallel]

    def _circuit(self, parallel: bool) -> Any:
        """A runnable circuit of this thread."""
        known: dict[bool, Any] = self._local.__dict__.setdefault("circuits", {})
        if parallel not in known:
            made = self._of(parallel)
            program = compiler.ServerProgram(made.library, False)
            # What is made of a program does not hold it.
            known[parallel] = (program, program.get_server_circuit(made.function))
        return known[parallel][1]
