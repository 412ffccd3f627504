"""What ciphertexts gave against the integer model, and whether noise explains the difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir.runtime import Arrays
from ..passes.analysis.noise import NoisyModel
from ..program import Program

DRAWS = 40
"""Times that the noise model runs on each sample."""
SIGMAS = 5.0
"""Standard deviations that a count may be past its mean: one run in a million is further off by chance."""


@dataclass(frozen=True)
class Encrypted:
    """Samples on ciphertexts beside the integer model.

    Attributes:
        samples: How many.
        differing: Of them, those of which any decrypted integer is another than the model's.
        expected: As many would be, on average, by the noise model.
        most: As many may be.
        far: Samples that are off by more than twice what noise does at most, at any output.
        overflows: Samples left out, in which the model itself leaves its ranges: it clamps, a circuit wraps.
        seconds: Of one evaluation, the median.
    """

    samples: int
    differing: int
    expected: float
    most: float
    far: int
    overflows: int
    seconds: float

    @property
    def explained(self) -> bool:
        """Whether errors of encryption explain all that differs."""
        return self.differing <= self.most and self.far == 0

    @property
    def told(self) -> str:
        """The counts as a sentence."""
        return (
            f"{self.differing} of {self.samples} samples differ on ciphertexts (noise explains "
            f"{self.expected:.1f}, at most {self.most:.1f}), {self.far} of them by more than noise does"
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
    total = len(next(iter(data.values())))
    picked = {
        k: np.resize(v, (samples, *v.shape[1:])) if samples > total else v[:samples] for k, v in data.items()
    }
    result = program.run(picked, "encrypted")
    assert result.evaluations is not None
    inside = result.overflows.by_sample == 0
    wanted, found = ({k: v[inside] for k, v in a.items()} for a in (result.expected, result.outputs))
    noisy = NoisyModel(program.integer_model, program.manifest.p_error or 1e-5)
    given = {k: v[inside] for k, v in picked.items()}
    errors = np.zeros(int(inside.sum()))
    reach = dict.fromkeys(wanted, 0.0)
    for draw in range(DRAWS if inside.any() else 0):
        drawn = noisy.run(given, seed=draw)
        errors += differing(wanted, drawn)
        for name, array in drawn.items():
            reach[name] = max(reach[name], _distance(wanted[name], array).max(initial=0.0))
    # A share of 0 of so few draws may be a small one.
    shares = np.minimum((errors + 0.5) / (DRAWS + 1), 1.0)
    mean = float((errors / DRAWS).sum())
    most = float(shares.sum() + SIGMAS * np.sqrt((shares * (1 - shares)).sum()))
    other = differing(wanted, found)
    unit = {k: _unit(v) for k, v in wanted.items()}
    far = np.zeros(len(other), bool)
    for name, array in found.items():
        distance = _distance(wanted[name], array).reshape(len(array), -1).max(axis=1, initial=0.0)
        far |= distance > 2 * reach[name] + unit[name]
    return Encrypted(
        int(inside.sum()),
        int(other.sum()),
        round(mean, 2),
        round(most, 2),
        int(far.sum()),
        int((~inside).sum()),
        result.evaluations.latency,
    )


def differing(wanted: Arrays, found: Arrays) -> np.ndarray:
    """For each sample whether any output is another number: (samples), bool."""
    total = np.zeros(len(next(iter(wanted.values()))), bool)
    for name, array in wanted.items():
        other = _distance(array, found[name]) > 1e-6 * (1 + np.abs(array.astype(np.float64)))
        total |= other.reshape(len(array), -1).any(axis=1)
    return total


def _distance(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(wanted.astype(np.float64) - found.astype(np.float64)))


def _unit(array: np.ndarray) -> float:
    """The least distance of two different values of an output: one step of it."""
    values = np.unique(array.astype(np.float64))
    return float(np.diff(values).min()) if len(values) > 1 else 1e-6
