"""The server: it computes on ciphertexts, with the evaluation keys of whoever asks."""

from __future__ import annotations

import os
from typing import Any

from ..backends.sides import Progress, ServerSide, quiet
from ..backends.sides_registry import sides_of
from ..calls import Calls
from ..evaluations import Evaluations, Jobs
from ..ir.errors import DataError
from .bundle import Bundle, load, side_of
from .ciphertexts import Call, Ciphertexts, EncryptedResults
from .headers import CiphertextsHeader, CircuitEntry, ServerHeader
from .keys import EvaluationKeys


class Server:
    """The server's half of a circuit.

    Args:
        bundle: Its content.

    Attributes:
        header: What it says of itself: the circuits, their tolerated errors, the level of security.
        evaluations: What the calls of the last ``evaluate`` took.
    """

    def __init__(self, bundle: Bundle[ServerHeader]) -> None:
        self._bundle = bundle
        self.header = bundle.header
        self.evaluations: Evaluations | None = None
        self._sides: dict[int, ServerSide] = {}
        self._ready: tuple[str, Any] | None = None

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes) -> Server:
        """Read ``model.server``; it is compiled when it first computes.

        Args:
            source: Its path, or its content.

        Raises:
            ArtifactError: There is no such file, or it is another one, damaged, or of a newer format.
        """
        return cls(load(source, ServerHeader))

    def prepare(self, *, alone: bool = False) -> None:
        """Compile all circuits now; ``alone`` for calls that each run on one core."""
        for entry in self.header.circuits:
            self.side(entry.batch).prepare(alone=alone)

    def evaluate(
        self, ciphertexts: Ciphertexts, keys: EvaluationKeys, jobs: Jobs = 1, progress: Progress = quiet
    ) -> EncryptedResults:
        """Compute on ciphertexts; what it took is in ``evaluations``.

        The keys stay ready until others come: to make them so takes as long as some bootstraps, and several
        times the memory of their file.

        Args:
            ciphertexts: What a client encrypted for this circuit.
            keys: That client's evaluation keys.
            jobs: Calls that are evaluated at the same time, each on one core; with 1 they come one after the
                other, each on all cores. ``auto`` measures both on the first calls, and goes on with what
                gives more throughput.
            progress: Called with (what, done, total).

        Raises:
            DataError: The ciphertexts or the keys are of another circuit, or damaged.
        """
        header = ciphertexts.header
        self.check(header, keys)
        side = self.side(header.batch)
        if self._ready is None or self._ready[0] != keys.id:
            self._ready = None  # two of them at once would take twice the memory
            self._ready = keys.id, side.parse_keys(keys.content)
        ready = self._ready[1]
        done: list[Call] = []

        def receive(result: Call, _: float) -> None:
            done.append(result)
            progress("evaluate", min(len(done) * header.batch, header.samples), header.samples)

        progress("evaluate", 0, header.samples)
        calls = Calls(
            header.samples,
            header.batch,
            lambda number: ciphertexts.calls[number],
            lambda call, alone: compute(side, ready, call, alone=alone),
            receive,
        )
        self.evaluations = calls.run(jobs)
        return EncryptedResults.of(header, done)

    def side(self, batch: int) -> ServerSide:
        """What computes so many samples a call.

        Raises:
            ArtifactError: There is no circuit for so many.
        """
        if batch not in self._sides:
            self.header.circuit(batch)
            self._sides[batch] = side_of(self._bundle.parts, batch, sides_of(self.header.backend).server)
        return self._sides[batch]

    @staticmethod
    def circuit_of(half: ServerHeader, asked: CiphertextsHeader) -> CircuitEntry:
        """The circuit of a half that ciphertexts are for.

        Raises:
            DataError: They are for another one.
        """
        entry = next((c for c in half.circuits if c.id == asked.circuit), None)
        if entry is None or entry.batch != asked.batch:
            raise DataError(
                "the inputs were encrypted for another circuit",
                found=f"{asked.circuit[:16]}, {asked.batch} samples a call",
                allowed=", ".join(f"{c.id[:16]} ({c.batch} a call)" for c in half.circuits),
                do="encrypt them with the client half that belongs to this server half",
            )
        return entry

    def check(self, header: CiphertextsHeader, keys: EvaluationKeys) -> CircuitEntry:
        """The circuit that ciphertexts are for.

        Raises:
            DataError: They are for another one, or the keys are another client's, or serve another circuit.
        """
        entry = self.circuit_of(self.header, header)
        if header.keys != keys.id:
            raise DataError(
                "the inputs were encrypted with other keys",
                found=header.keys[:16],
                allowed=keys.id[:16],
                do="give the evaluation keys of whoever encrypted them",
            )
        if keys.parameters != entry.parameters:
            raise DataError(
                "the evaluation keys serve another circuit",
                found=keys.parameters[:16],
                allowed=entry.parameters[:16],
                do="make keys with the client half of this circuit",
            )
        return entry


def compute(side: ServerSide, keys: Any, call: Call, *, alone: bool) -> Call:
    """One call, from bytes to bytes."""
    return side.dump(side.evaluate(keys, side.parse(call), alone=alone))
