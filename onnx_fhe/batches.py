"""Circuits for several samples a call, beside the one for one sample: what they cost, where files lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .backends.base import Circuit
from .backends.sides import Progress, quiet
from .backends.statistics import CircuitStatistics
from .ir.errors import UserError

FOLDER = "batches"
"""In ``client/`` and ``server/`` of an artifact: a folder for each number of samples."""


@dataclass(frozen=True)
class BatchCircuit:
    """A circuit for several samples a call.

    Attributes:
        samples: Samples of one call.
        statistics: What a call costs.
    """

    samples: int
    statistics: CircuitStatistics


class Circuits(Mapping[int, Circuit]):
    """The circuits of a program by the number of samples that they take in one call.

    Args:
        makers: Return the circuits; called when one is first needed, as a backend may be slow to import.
    """

    def __init__(self, makers: Mapping[int, Callable[[], Circuit]]) -> None:
        self._makers = dict(makers)
        self._made: dict[int, Circuit] = {}

    def __getitem__(self, samples: int) -> Circuit:
        if samples not in self._made:
            self._made[samples] = self._makers[samples]()
        return self._made[samples]

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._makers))

    def __len__(self) -> int:
        return len(self._makers)

    def __contains__(self, samples: object) -> bool:
        return samples in self._makers


def numbers(asked: int | Sequence[int]) -> tuple[int, ...]:
    """The numbers of samples that circuits are asked for, besides one, in order.

    Raises:
        UserError: One is no number from 1 on.
    """
    listed = [asked] if isinstance(asked, int) else list(asked)
    for number in listed:
        if number < 1:
            raise UserError(
                "no call has so many samples", found=str(number), allowed="whole numbers from 1 on"
            )
    return tuple(sorted({n for n in listed if n > 1}))


def batched(circuit: Circuit, asked: Sequence[int], progress: Progress = quiet) -> dict[int, Circuit]:
    """A circuit for each of the numbers of samples.

    Raises:
        UnsupportedError: Samples of this network cannot be computed together, or the backend takes one at a
            time.
    """
    made = {}
    for done, samples in enumerate(asked):
        progress("compile for batches", done, len(asked))
        made[samples] = circuit.of(samples)
        progress("compile for batches", done + 1, len(asked))
    return made


def costs(circuits: Mapping[int, Circuit]) -> tuple[BatchCircuit, ...]:
    """What a manifest says of circuits for several samples."""
    return tuple(BatchCircuit(n, c.statistics()) for n, c in sorted(circuits.items()) if n > 1)


def placed(files: Mapping[str, bytes], samples: int) -> dict[str, bytes]:
    """The files of a circuit under the names that they have in an artifact."""
    if samples == 1:
        return dict(files)
    found = {}
    for name, content in files.items():
        side, rest = name.split("/", 1)
        found[f"{side}/{FOLDER}/{samples}/{rest}"] = content
    return found


def taken(files: Mapping[str, bytes], samples: int) -> dict[str, bytes]:
    """The files of one circuit of an artifact, under the names that it gave them."""
    if samples == 1:
        return {n: c for n, c in files.items() if n.split("/")[1:2] != [FOLDER]}
    found = {}
    for name, content in files.items():
        side, *rest = name.split("/", 3)
        if rest[:2] == [FOLDER, str(samples)]:
            found[f"{side}/{rest[2]}"] = content
    return found
