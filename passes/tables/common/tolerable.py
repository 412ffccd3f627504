"""The largest error of table lookups that a network can take, by bisection on its noisy model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from ....analysis.noise.noise import NoisyModel
from ....analysis.outputs.divergence import output_error, outputs
from ...framework.base import Context

MAX_P_ERROR = 0.2
"""Largest error of a lookup that is tried; the noise model and Concrete's optimizer are not made for more."""
SEARCH_HALVINGS = 10
"""Halvings of the interval in which the error is looked for, by its logarithm."""

Measure = Literal["predictions", "output-error"]


@dataclass(frozen=True)
class Tolerable:
    """What was found.

    Attributes:
        p_error: The largest tolerable error; the usual one where nothing larger is.
        effect: What it does to the outputs, by the measure.
        usual: What the usual error does.
        measure: The measure that was taken.
        samples: How many samples it was taken on.
    """

    p_error: float
    effect: float
    usual: float
    measure: Measure
    samples: int

    def describe(self) -> str:
        """One line."""
        what = (
            f"changes {self.effect:.1%} of the predictions on {self.samples} samples"
            if self.measure == "predictions"
            else f"makes an output error of {self.effect:.2%} of the variance on {self.samples} samples"
        )
        return (
            f"lookups may go wrong with probability {self.p_error:g}; noise {what}"
            f" ({self.usual:.2%} at the usual error)"
        )


def largest_tolerable(
    model: ir.Model,
    data: Mapping[str, np.ndarray],
    usual: float,
    most: float,
    tolerance: float,
    measure: Measure,
    draws: int,
    context: Context,
) -> Tolerable:
    """Search for the largest error whose effect is at most ``tolerance`` more than that of the usual one.

    Every error is tried with the same random numbers, so that only its size matters.

    Args:
        model: Integer level; not changed.
        data: Inputs by name, samples on axis 0.
        usual: The error to start from.
        most: The largest to try.
        tolerance: In units of ``measure``.
        measure: ``predictions`` falls back to ``output-error`` where an output has no classes.
        draws: How often the noise is drawn.
        context: For the seed and progress.
    """
    wanted = outputs(model, data)
    if not _classes(wanted):
        measure = "output-error"
    done = 0

    def effect(p_error: float) -> float:
        nonlocal done
        context.progress("search p_error", done, SEARCH_HALVINGS + 2)
        done += 1
        noisy = NoisyModel(model, p_error, override=True)
        found = [
            _effect(list(noisy.run(data, context.seed + i).values()), wanted, measure) for i in range(draws)
        ]
        return float(np.mean(found))

    samples = len(next(iter(data.values())))
    before = effect(usual)
    low, high = math.log(usual), math.log(max(usual, most))
    best = usual, before
    if (last := effect(max(usual, most))) <= before + tolerance:
        return Tolerable(_rounded(max(usual, most)), last, before, measure, samples)
    for _ in range(SEARCH_HALVINGS):
        middle = (low + high) / 2
        if (now := effect(math.exp(middle))) <= before + tolerance:
            low, best = middle, (math.exp(middle), now)
        else:
            high = middle
    return Tolerable(_rounded(best[0]), best[1], before, measure, samples)


def _rounded(p_error: float) -> float:
    """Two digits, rounded down, but what has no more stays as it is."""
    scale = 10.0 ** (math.floor(math.log10(p_error)) - 1)
    return float(f"{math.floor(p_error / scale + 1e-6) * scale:.2g}")


def _classes(wanted: list[np.ndarray]) -> bool:
    """Whether every output has a value for each of several classes."""
    return all(a.dtype.kind == "f" and a.ndim >= 2 and a.shape[-1] > 1 for a in wanted)


def _effect(found: list[np.ndarray], wanted: list[np.ndarray], measure: Measure) -> float:
    if measure == "output-error":
        return output_error(found, wanted)
    return max(
        float((a.argmax(axis=-1) != b.argmax(axis=-1)).mean()) for a, b in zip(found, wanted, strict=True)
    )
