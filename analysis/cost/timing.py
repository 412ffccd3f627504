"""Milliseconds of a bootstrap, from a few parameter sets whose time was measured.

The time of a bootstrap is the work of its Fourier transforms, of its products with the key, and of the key
switch in front of it; what each unit of work takes is fitted to the measurements. What the fit leaves over at
the measured sets (caches, mostly) is carried to the sets between them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from itertools import combinations

import numpy as np

from .parameters import BootstrapParameters, KeyswitchParameters, Step

DEFAULT = "machine.json"
"""The profile of a machine (``onnx_fhe.machine``) that comes with onnx-fhe."""
EIGHTH_WEIGHT_DISTANCE = 0.15
"""Distance of two parameter sets (in the logarithm of their work) at which the measurement of one counts an
eighth in the prediction of the other."""


@dataclass(frozen=True)
class Measured:
    """One parameter set and its time.

    Attributes:
        bootstrap, keyswitch: The set.
        milliseconds: Time of one bootstrap with its key switch, on one core.
        complexity: What Concrete says it takes (operations).
    """

    bootstrap: BootstrapParameters
    keyswitch: KeyswitchParameters
    milliseconds: float
    complexity: float


@dataclass(frozen=True)
class Timings:
    """Times on one core of some machine.

    Attributes:
        measured: Parameter sets and their times; at least one.
        nanoseconds_per_product: Time of one coefficient of a ciphertext times a constant, added.
        call_seconds: Time of a call of a circuit besides its bootstraps: what is done to its keys each time.
    """

    measured: tuple[Measured, ...]
    nanoseconds_per_product: float = 1.0
    call_seconds: float = 0.0

    def milliseconds(
        self, bootstrap: BootstrapParameters | None, keyswitch: KeyswitchParameters | None = None
    ) -> float:
        """Time of one bootstrap with its key switch, or of one of the two alone."""
        work = _work(bootstrap, keyswitch)
        fitted = float(work @ self._units)
        if bootstrap is None:
            return fitted
        return fitted * self._left_over(work, bootstrap)

    def of_complexity(self, complexity: float) -> float:
        """Milliseconds of one bootstrap of which only Concrete's complexity (operations) is known."""
        points = sorted((m.complexity, m.milliseconds) for m in self.measured)
        known, times = np.log([p[0] for p in points]), _rising(np.log([p[1] for p in points]))
        at = math.log(max(1.0, complexity))
        # Outside of what was measured the time grows as the work does.
        beyond = at - min(max(at, float(known[0])), float(known[-1]))
        return math.exp(float(np.interp(at, known, times)) + beyond)

    def seconds(self, steps: tuple[Step, ...], cores: int = 1, efficiency: float = 1.0) -> float:
        """Time of all steps.

        Args:
            steps: They run one after the other.
            cores: The bootstraps of one step are spread over so many.
            efficiency: Share of the cores' time that is used so.
        """
        total = 1e3 * self.call_seconds if steps else 0.0
        times: dict[tuple[BootstrapParameters | None, KeyswitchParameters | None], float] = {}
        for step in steps:
            parameters = step.bootstrap, step.keyswitch
            if parameters not in times:
                times[parameters] = self.milliseconds(*parameters)
            rounds = -(-step.count // cores)
            # One core alone has nobody to wait for.
            slower = 1.0 if cores == 1 or step.count == 1 else 1 / efficiency
            total += rounds * slower * times[parameters]
        return total / 1e3

    @cached_property
    def _units(self) -> np.ndarray:
        """Milliseconds of a unit of each kind of work: relative least squares, none below 0."""
        rows = np.stack([_work(m.bootstrap, m.keyswitch) / m.milliseconds for m in self.measured])
        best, error = np.zeros(rows.shape[1]), math.inf
        for count in range(1, rows.shape[1] + 1):
            for columns in map(list, combinations(range(rows.shape[1]), count)):
                units, *_ = np.linalg.lstsq(rows[:, columns], np.ones(len(rows)), rcond=None)
                found = float(((rows[:, columns] @ units - 1) ** 2).sum())
                if (units > 0).all() and found < error - 1e-12:
                    best, error = np.zeros(rows.shape[1]), found
                    best[columns] = units
        return best

    def _left_over(self, work: np.ndarray, bootstrap: BootstrapParameters) -> float:
        """By how much the measured sets near this one differ from the fit."""
        logs, weights = [], []
        for known in self.measured:
            other = _work(known.bootstrap, known.keyswitch)
            distance = float(np.abs(np.log((work + 1) / (other + 1))).sum())
            if known.bootstrap.polynomial_size != bootstrap.polynomial_size:
                distance += 1.0
            logs.append(math.log(known.milliseconds / float(other @ self._units)))
            weights.append(1 / (EIGHTH_WEIGHT_DISTANCE + distance) ** 3)
        return math.exp(float(np.average(logs, weights=weights)))


def _rising(values: np.ndarray) -> np.ndarray:
    """The values made non-decreasing: neighbours out of order take their mean (complexity can misrank)."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, count = float(value), 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    return np.repeat([b[0] for b in blocks], [b[1] for b in blocks])


def _work(bootstrap: BootstrapParameters | None, keyswitch: KeyswitchParameters | None) -> np.ndarray:
    """Units of work: transforms, products of the bootstrap, products of the key switch."""
    return np.array(
        [
            0.0 if bootstrap is None else bootstrap.transforms,
            0.0 if bootstrap is None else bootstrap.products,
            0.0 if keyswitch is None else keyswitch.products,
        ]
    )


@lru_cache(maxsize=1)
def default_timings() -> Timings:
    """Those that come with onnx-fhe: of one machine, and only about right on another."""
    content = json.loads(resources.files(__package__).joinpath(DEFAULT).read_bytes())
    measured = tuple(
        Measured(
            BootstrapParameters(**entry["bootstrap"]),
            KeyswitchParameters(**entry["keyswitch"]),
            entry["milliseconds"],
            entry["complexity"],
        )
        for entry in content["measured"]
    )
    return Timings(measured, content["nanoseconds_per_product"], content["call_seconds"])
