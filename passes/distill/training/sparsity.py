"""Gradual unstructured pruning: masks by magnitude that grow while the student trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ...compress.prune.select import Scope, keep_counts, largest
from .callbacks import Callback
from .quantizers import FakeWeight

BEGIN_SHARE = 0.05
"""Share of the steps after which the first weights go."""
END_SHARE = 0.6
"""Share of the steps after which all have gone."""
REMOVAL_INTERVAL = 25
"""Steps between two looks at which weights are the smallest."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of one layer.

    Attributes:
        weight: Its weight.
        axis: Axis of its neurons.
        sparsity: Share of the weights that are to be zero.
        nonzeros: Most non-zero weights of each neuron; None for any number.
    """

    weight: FakeWeight
    axis: int
    sparsity: float
    nonzeros: int | None

    def rows(self, array: torch.Tensor) -> np.ndarray:
        """An array of the shape of the weight as (neurons, inputs)."""
        return np.asarray(array.detach().movedim(self.axis, 0).flatten(1).numpy())


class Sparsity(Callback):
    """Raises the sparsity from what it is to what is wanted along a cubic (Zhu & Gupta 2017, 1710.01878).

    A weight that has gone stays gone; of the others the smallest go, by the magnitude they have then.

    Args:
        layers: What is wanted, by layer.
        scope: What a sparsity is a share of.
    """

    def __init__(self, layers: Mapping[str, Wanted], scope: Scope) -> None:
        self.layers = {k: w for k, w in layers.items() if w.sparsity > 0 or w.nonzeros is not None}
        self.scope = scope
        self._first = {k: float(1 - w.rows(w.weight.mask).mean()) for k, w in self.layers.items()}
        self._done = False

    def before(self, step: int, done: float) -> None:
        """See ``Callback``."""
        if self._done or not self.layers or step % REMOVAL_INTERVAL or done < BEGIN_SHARE:
            return
        self._prune(min(1.0, (done - BEGIN_SHARE) / (END_SHARE - BEGIN_SHARE)))

    def complete(self, done: float) -> bool:  # noqa: ARG002
        """See ``Callback``."""
        return self._done or not self.layers

    def finish(self) -> None:
        """See ``Callback``."""
        if not self.complete(1.0):
            self._prune(1.0)

    @torch.no_grad()
    def _prune(self, progress: float) -> None:
        rest = (1.0 - progress) ** 3
        sizes = {
            k: w.rows(w.weight.latent.abs() * w.weight.scale() + 1e-12) * w.rows(w.weight.mask)
            for k, w in self.layers.items()
        }
        shares = {
            k: w.sparsity + (min(self._first[k], w.sparsity) - w.sparsity) * rest
            for k, w in self.layers.items()
        }
        counts = keep_counts(sizes, shares, self.scope)
        for name, wanted in self.layers.items():
            size = sizes[name]
            count = counts[name]
            if wanted.nonzeros is not None:
                before = size.shape[1] * (1 - self._first[name])
                most = wanted.nonzeros + max(0.0, before - wanted.nonzeros) * rest
                count = np.minimum(count, int(np.ceil(most)))
            # A weight of a pruned neuron is zero: it never counts as large.
            mask = np.stack([largest(row, int(c)) for row, c in zip(size, count, strict=True)]) & (size > 0)
            shape = wanted.weight.mask.movedim(wanted.axis, 0).shape
            kept = torch.from_numpy(mask.reshape(shape).astype(np.float32)).movedim(0, wanted.axis)
            wanted.weight.mask.copy_(kept)
        self._done = progress >= 1.0
