"""A circuit that Concrete compiled, fresh or loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.batch_runner import Arrays
from ...ir.errors import ArtifactError, DataError
from ..base import Circuit, EncryptedSession, LowerOptions
from ..concrete_runtime.client import ConcreteClient
from ..concrete_runtime.library import compile_library
from ..concrete_runtime.server import ConcreteServer
from ..concrete_runtime.store import Port, Stored, write
from ..concrete_runtime.values import checked, decrypted
from ..sides import Progress, quiet
from ..statistics import CircuitStatistics
from .compiling import Compiled
from .options import options_of
from .session import ConcreteSession
from .simulator import Simulator


class ConcreteCircuit(Circuit):
    """A program with its interface; what compiles or traces is made when it is first needed.

    Args:
        stored: What is kept of it in files.
        lowered: Returns what was compiled from the integer model; needed for ``clear``.
        progress: Called with (what, done, total).
        batched: Returns this circuit for so many samples a call; needed for sessions of several.
        checked: Returns what may be run of ``stored``, when that is first needed: where it came from a file,
            it may be the circuit of another model.
    """

    def __init__(
        self,
        stored: Stored,
        lowered: Callable[[], Compiled] | None,
        progress: Progress = quiet,
        batched: Callable[[int], ConcreteCircuit] | None = None,
        checked: Callable[[], Stored] | None = None,
    ) -> None:
        self._stored = stored
        self._lowered = lowered
        self._progress = progress
        self._batched = batched
        self._checked = checked

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What is encrypted, in order."""
        return self._run.ports.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What is decrypted, in order."""
        return self._run.ports.outputs

    @property
    def mlir(self) -> str:
        """The program that Concrete compiles."""
        return self._stored.mlir

    def clear(self, values: Mapping[str, np.ndarray]) -> Arrays:
        """The traced graph on every sample; results wrap as decryption would.

        Raises:
            ArtifactError: The circuit was loaded without its integer model.
        """
        graph = self._compiled.circuit.graph
        types = [n.output.dtype for n in graph.ordered_outputs()]
        found = self._each("clear", values, lambda sample: _listed(graph(*sample)))
        return {p.name: _wrapped(found[p.name], dtype) for p, dtype in zip(self.outputs, types, strict=True)}

    def simulate(self, values: Mapping[str, np.ndarray]) -> Arrays:
        """The compiled program with the noise of its parameters, a few milliseconds a sample."""
        simulator = self._simulator

        def run(sample: list[np.ndarray]) -> list[Any]:
            return [decrypted(p, v) for p, v in zip(self.outputs, simulator(sample), strict=True)]

        return self._each("simulate", values, run)

    def statistics(self) -> CircuitStatistics:
        """As measured when it was compiled from the model."""
        return self._stored.program.statistics

    def recorded(self) -> tuple[CircuitStatistics, LowerOptions]:
        """Its statistics and how it was compiled."""
        return self.statistics(), options_of(self._stored.program.settings)

    def session(self, batch: int = 1) -> EncryptedSession:
        """A client with its own keys, and this circuit's server; see ``Circuit.session``."""
        if batch > 1:
            return self.of(batch).session()
        self._server.prepare()
        return ConcreteSession(ConcreteClient(self._run.specs, self._run.ports), self._server)

    def of(self, batch: int) -> ConcreteCircuit:
        """This circuit for so many samples a call, compiled anew.

        Raises:
            ArtifactError: The circuit was loaded without its integer model.
            UnsupportedError: Samples of this network cannot be computed together.
        """
        if self._batched is None:
            raise _without_model()
        return self._batched(batch)

    def current(self) -> ConcreteCircuit:
        """This circuit as it runs here; see ``Circuit.current``."""
        return ConcreteCircuit(self._run, self._lowered, self._progress, self._batched)

    def save(self, folder: Path) -> None:
        """Write ``server/`` and ``client/``."""
        write(folder, self._stored)

    @cached_property
    def _compiled(self) -> Compiled:
        if self._lowered is None:
            raise _without_model()
        return self._lowered()

    @cached_property
    def _run(self) -> Stored:
        """What is run."""
        return self._stored if self._checked is None else self._checked()

    @cached_property
    def _server(self) -> ConcreteServer:
        return ConcreteServer(self._run)

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(compile_library(self._run.mlir, self._run.program.settings, simulated=True))

    def _each(
        self, what: str, values: Mapping[str, np.ndarray], run: Callable[[list[np.ndarray]], list[Any]]
    ) -> Arrays:
        """Run one call after the other; the last is filled up with its last sample."""
        total, batch = _samples(values, self.inputs), self.inputs[0].shape[0]
        results = {p.name: np.zeros((total, *p.shape[1:]), np.int64) for p in self.outputs}
        self._progress(what, 0, total)
        for first in range(0, total, batch):
            chosen = np.minimum(np.arange(first, first + batch), total - 1)
            given = {p.name: np.asarray(values[p.name])[chosen] for p in self.inputs}
            for port, found in zip(self.outputs, run(checked(self.inputs, given)), strict=True):
                kept = np.asarray(found).reshape(port.shape)[: total - first]
                results[port.name][first : first + batch] = kept
            self._progress(what, min(first + batch, total), total)
        return results


def _without_model() -> ArtifactError:
    return ArtifactError(
        "this circuit was loaded without its integer model",
        do="load it with the model, or run it encrypted or simulated, one sample a call",
    )


def _samples(values: Mapping[str, np.ndarray], ports: tuple[Port, ...]) -> int:
    if missing := [p.name for p in ports if p.name not in values]:
        raise DataError(
            "a value to encrypt is missing", found=", ".join(values) or "none", allowed=", ".join(missing)
        )
    counts = {len(values[p.name]) for p in ports}
    if len(counts) != 1:
        raise DataError("the inputs have different numbers of samples", found=str(sorted(counts)))
    return counts.pop()


def _listed(results: Any) -> list[Any]:
    """One value for each port: Concrete returns a tuple only where there are several."""
    return list(results) if isinstance(results, tuple) else [results]


def _wrapped(array: np.ndarray, dtype: Any) -> np.ndarray:
    """What decryption makes of ``array``: as many bits as Concrete assigned."""
    size = 1 << dtype.bit_width
    low = -(size // 2) if dtype.is_signed else 0
    return np.asarray((array - low) % size + low)
