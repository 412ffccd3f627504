"""What the float model does on calibration data: what merged operators have to imitate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from ....ir import runtime

MAX_REFERENCE_BYTES = 2**29
"""Memory for the values of the float model; beyond it fewer samples are taken."""
_MIN_REFERENCE_SAMPLES = 32
"""Samples that are taken however much memory their values need."""


class Reference:
    """Values of the float model by name.

    Args:
        model: The float model, as it is before anything goes.
        data: Calibration inputs by name.
        seed: Seeds the choice of samples, where not all fit into memory.
    """

    def __init__(self, model: ir.Model, data: Mapping[str, np.ndarray], seed: int) -> None:
        total = len(next(iter(data.values())))
        self.samples = np.arange(total)
        most = max(_MIN_REFERENCE_SAMPLES, MAX_REFERENCE_BYTES // max(1, _bytes(model)))
        random = np.random.default_rng(seed)
        # Shuffled, so that the samples held back do not follow the order of the file.
        self.samples = random.permutation(total)[:most]
        self.data = {k: np.asarray(v)[self.samples] for k, v in data.items()}
        self._model = model
        self._known: dict[str, np.ndarray] = dict(self.data)

    def need(self, values: Iterable[ir.Value]) -> None:
        """Compute these values in one run of the model."""
        names = list(dict.fromkeys(str(v.name) for v in values if str(v.name) not in self._known))
        if names:
            self._known |= runtime.Session(self._model, names).run_batched(self.data)

    def __getitem__(self, value: ir.Value) -> np.ndarray:
        """The value of that name, samples on axis 0."""
        self.need([value])
        return self._known[str(value.name)]


def line(x: np.ndarray, y: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of the least-squares line of ``y`` on ``x``, one for each index of ``axes``.

    Where x does not vary the slope is 0. Both have the rank of x, with size 1 on all other axes.
    """
    keep = {a % x.ndim for a in axes}
    over = tuple(a for a in range(x.ndim) if a not in keep)
    x_mean = x.mean(axis=over, keepdims=True, dtype=np.float64)
    y_mean = y.mean(axis=over, keepdims=True, dtype=np.float64)
    difference = x - x_mean
    spread = (difference**2).mean(axis=over, keepdims=True)
    shared = (difference * (y - y_mean)).mean(axis=over, keepdims=True)
    slope = np.where(spread > 0, shared / np.where(spread > 0, spread, 1), 0.0)
    return slope, y_mean - slope * x_mean


def _bytes(model: ir.Model) -> int:
    """Bytes that all values of one sample take."""
    values = [o for n in model.graph for o in n.outputs if o.shape is not None]
    return sum(4 * math.prod(d for d in v.shape or () if isinstance(d, int)) for v in values)
