"""How far what a circuit answers is from what the network answers, output by output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..fidelity.measure import MINOR_SPREAD_SHARE
from ..ir.batch_runner import Arrays

CONSTANT_ERROR_SHARE = 0.1
"""A constant may be off by this share of what the output's most variable element varies by."""
LOST_AGREEMENT = 0.5
"""R^2 of an output below which it is lost; the same for classes, between chance (0) and all equal (1)."""


@dataclass(frozen=True)
class Agreement:
    """Two sets of outputs, compared.

    Attributes:
        worst: The least R^2 of any channel that varies, or the least agreement of classes beyond chance; 1
            where nothing varies.
        output: The output that it belongs to, and the channel.
        constants: Elements that hardly vary in the network and are somewhere else in the circuit.
    """

    worst: float
    output: str
    constants: tuple[str, ...]

    @property
    def lost(self) -> bool:
        """Whether nobody could use the circuit in the network's place."""
        return bool(self.constants) or not self.worst >= LOST_AGREEMENT


def agreement(expected: Arrays, found: Arrays) -> Agreement:
    """Compare the network's outputs with others, by name; samples on axis 0.

    The channels of an output (axis 1) are looked at one by one, their positions together. One that varies
    little beside the others counts as constant, as where the compiler judges (``fidelity``).

    Raises:
        ValueError: An output is missing, of another shape, or no number.
    """
    worst, place, constants = 1.0, "", []
    if list(expected) != list(found):
        raise ValueError(f"outputs {list(found)} instead of {list(expected)}")
    for name, wanted in expected.items():
        given = found[name]
        if given.shape != wanted.shape or given.dtype != wanted.dtype:
            raise ValueError(
                f"output {name!r} is {given.dtype} {given.shape} instead of {wanted.dtype} {wanted.shape}"
            )
        if not np.isfinite(given).all():
            raise ValueError(f"output {name!r} holds what is no number")
        for i, (a, b, constant) in enumerate(_channels(wanted, given)):
            if constant is not None:
                if constant:
                    constants.append(f"{name}[{i}]")
                continue
            score = beyond_chance(a, b) if a.dtype.kind != "f" else r_squared(a, b)
            if not score >= worst:
                worst, place = score, f"{name}[{i}]"
    return Agreement(worst, place, tuple(constants))


def r_squared(wanted: np.ndarray, found: np.ndarray) -> float:
    """Share of the variance that is right; about each element's own mean."""
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    error = ((wanted - found) ** 2).sum()
    return float(1 - error / max(((wanted - wanted.mean(axis=0)) ** 2).sum(), 1e-300))


def beyond_chance(wanted: np.ndarray, found: np.ndarray) -> float:
    """Cohen's kappa: 1 where all classes are equal, 0 where as many are as would be by chance."""
    values = np.unique(np.concatenate([wanted.reshape(-1), found.reshape(-1)]))
    chance = sum(float((wanted == v).mean() * (found == v).mean()) for v in values)
    equal = float((wanted == found).mean())
    return 1.0 if equal == 1 else (equal - chance) / (1 - chance)


def _channels(wanted: np.ndarray, found: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, bool | None]]:
    """Each channel of both, and for constant ones whether the circuit is off."""
    if wanted.ndim == 1 or wanted.dtype.kind != "f":
        wanted, found = wanted.reshape(len(wanted), 1, -1), found.reshape(len(found), 1, -1)
    shaped = [a.reshape(len(a), a.shape[1], -1) for a in (wanted, found)]
    if wanted.dtype.kind != "f":
        return [(shaped[0][:, 0], shaped[1][:, 0], None)]
    a, b = (x.astype(np.float64) for x in shaped)
    spread = np.sqrt(a.var(axis=0).mean(axis=-1))
    # What no sample changes but for rounding in float32 is no scale to measure by.
    most = float(spread.max(initial=0))
    level = np.abs(a).max(axis=(0, 2), initial=0)
    parts: list[tuple[np.ndarray, np.ndarray, bool | None]] = []
    for i in range(a.shape[1]):
        off: bool | None = None
        if spread[i] < MINOR_SPREAD_SHARE * most or spread[i] <= 1e-5 * level[i] or spread[i] == 0:
            # Where nothing varies at all, the compiler measures by the value itself, too.
            scale = most if most > 1e-5 * level.max() else level.max()
            off = bool(
                np.abs(a[:, i] - b[:, i]).max() > CONSTANT_ERROR_SHARE * scale + 1e-3 * level[i] + 1e-5
            )
        parts.append((a[:, i], b[:, i], off))
    return parts
