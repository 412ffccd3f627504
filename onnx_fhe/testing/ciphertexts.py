"""What ciphertexts gave against the integer model, and whether noise explains the difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..analysis.noise.noise import NoisyModel
from ..backends.reference import count_overflows
from ..backends.sides import quiet
from ..evaluating import encrypted
from ..ir.batch_runner import Arrays
from ..ir.p_error import DEFAULT_P_ERROR
from ..ir.runtime import Session
from ..program import Program
from ..prologue import Prologue
from ..running import Stopwatch

NOISE_DRAWS = 40
"""Times that the noise model runs on each sample."""
MAX_SIGMAS = 5.0
"""Standard deviations that a count may be past its mean: one run in a million is further off by chance."""


@dataclass(frozen=True)
class Encrypted:
    """Samples on ciphertexts beside the integer model; what is compared are decrypted integers.

    Attributes:
        samples: How many.
        values: Integers that were decrypted.
        differing: Samples of which any integer is another than the model's.
        differing_values: Integers that are.
        expected: As many samples would differ, on average, by the noise model.
        max_differing: As many may, by chance.
        far: Samples that are off by more than twice what noise does at most, at any output.
        overflows: Samples left out, in which the model itself leaves its ranges: it clamps, a circuit wraps.
        seconds: Time of one evaluation, the median.
    """

    samples: int
    values: int
    differing: int
    differing_values: int
    expected: float
    max_differing: float
    far: int
    overflows: int
    seconds: float

    @property
    def explained(self) -> bool:
        """Whether errors of encryption explain all that differs."""
        return self.differing <= self.max_differing and self.far == 0

    @property
    def told(self) -> str:
        """The counts as a sentence."""
        return (
            f"{self.differing} of {self.samples} samples differ on ciphertexts (noise explains "
            f"{self.expected:.1f}, at most {self.max_differing:.1f}), {self.far} of them by more"
            " than noise does"
        )


def compare_encrypted(program: Program, data: Arrays, samples: int) -> Encrypted:
    """Run samples on ciphertexts and compare what is decrypted with the integer model.

    Noise makes a value that lies near the end of a table's step cross it, and approximate rounding may round
    it either way. The noise model, run often, says in how many samples any output is another one, and by how
    much.

    Args:
        program: With a circuit that makes ciphertexts.
        data: Inputs by name; taken from the start again where there are fewer samples.
        samples: How many.
    """
    picked = {k: np.take(v, range(samples), axis=0, mode="wrap") for k, v in data.items()}
    server = program.parts.server
    values: Arrays = Prologue(program.parts).run(picked)[0]
    inside = count_overflows(server, values).by_sample == 0
    values = {k: v[inside] for k, v in values.items()}
    count, skipped = int(inside.sum()), int((~inside).sum())
    if not count:
        return Encrypted(0, 0, 0, 0, 0.0, 0.0, 0, skipped, 0.0)
    session = program.circuit.session()
    session.keygen()
    found, evaluations = encrypted(session, values, Stopwatch(), quiet)
    given = {k: v.astype(np.float32) for k, v in values.items()}
    wanted = Session(server).run_batched(given)
    noisy = NoisyModel(server, program.manifest.p_error or DEFAULT_P_ERROR)
    errors, reach = np.zeros(count), dict.fromkeys(wanted, 0.0)
    for draw in range(NOISE_DRAWS):
        distances = _distances(wanted, noisy.run(given, seed=draw))
        errors += _any(distances)
        reach = {k: max(reach[k], float(d.max(initial=0.0))) for k, d in distances.items()}
    # None in so few draws may still be a small share.
    shares = np.minimum((errors + 0.5) / (NOISE_DRAWS + 1), 1.0)
    distances = _distances(wanted, found)
    far = _any({k: d > 2 * reach[k] + _step(wanted[k]) for k, d in distances.items()})
    return Encrypted(
        samples=count,
        values=sum(d.size for d in distances.values()),
        differing=int(_any(distances).sum()),
        differing_values=sum(int(np.count_nonzero(d)) for d in distances.values()),
        expected=round(float((errors / NOISE_DRAWS).sum()), 2),
        max_differing=round(float(shares.sum() + MAX_SIGMAS * np.sqrt((shares * (1 - shares)).sum())), 2),
        far=int(far.sum()),
        overflows=skipped,
        seconds=evaluations.latency,
    )


def _distances(wanted: Arrays, found: Arrays) -> Arrays:
    """How far each value is off: by name, (samples, values of one)."""
    return {
        k: np.abs(v.astype(np.float64) - found[k].astype(np.float64)).reshape(len(v), -1)
        for k, v in wanted.items()
    }


def _any(arrays: Arrays) -> np.ndarray:
    """For each sample whether anything is not zero: (samples), bool."""
    return np.asarray(np.any([a.any(axis=1) for a in arrays.values()], axis=0))


def _step(array: np.ndarray) -> float:
    """The least distance of two different values of an output."""
    values = np.unique(array.astype(np.float64))
    return float(np.diff(values).min()) if len(values) > 1 else 1.0
