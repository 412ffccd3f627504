"""Penalties that make the circuit cheaper: narrow accumulators, light weights, ranges that are used."""

from __future__ import annotations

import torch

from .callbacks import Callback
from .quantizers import FakeWeight
from .samples import Samples
from .sparsity import BEGIN_SHARE, END_SHARE
from .student import Student

FREE_RANGE_DEVIATIONS = 3.0
"""Standard deviations that a range may be wide without a penalty."""


class Norms(Callback):
    """How far integer weights behind tables exceed the norm past which bootstraps cost more."""

    def __init__(self, student: Student) -> None:
        self.student = student

    def penalty(self, batch: Samples) -> torch.Tensor | None:  # noqa: ARG002
        """See ``Callback``."""
        found = [torch.zeros(())]
        for rows, limit in self.student.norms():
            norm = ((rows**2).sum(dim=1) + 1e-6).sqrt()
            found.append(torch.relu(norm / limit - 1.0).square().sum())
        return torch.stack(found).sum()


class Spread(Callback):
    """How much wider the accumulators range than their bulk: a lattice spends its points on all of it."""

    def __init__(self, student: Student, strength: float) -> None:
        self.student, self.strength = student, strength

    def capturing(self) -> bool:
        """See ``Callback``."""
        return True

    def penalty(self, batch: Samples) -> torch.Tensor | None:  # noqa: ARG002
        """See ``Callback``."""
        found = []
        for table in self.student.tables:
            z = self.student.captured[table.base]
            axis = table.lattice.axis
            columns = z.movedim(axis, -1).reshape(-1, z.shape[axis])
            spread = columns.std(dim=0) + 1e-3 * columns.std() + 1e-6
            span = columns.amax(dim=0) - columns.amin(dim=0)
            found.append(torch.relu(span / spread.detach() - FREE_RANGE_DEVIATIONS).mean())
        return self.strength * torch.stack(found).mean() if found else None


class Widths(Callback):
    """Narrows budgets (``Budget``) to what accumulators hold, along the cubic of ``Sparsity``.

    What exceeds a budget is cut off in every step; the penalty draws weights to where little is cut.

    Args:
        weights: Those with a budget are narrowed.
        strength: Weight of the penalty on how far a neuron's sum exceeds its budget.
    """

    def __init__(self, weights: list[FakeWeight], strength: float) -> None:
        self.weights = [w for w in weights if w.budget is not None]
        self.strength = strength
        self._first: list[float] = []
        for weight in self.weights:
            assert weight.budget is not None
            largest = float(weight.budget.sums(weight.latent.detach() * weight.mask).max())
            self._first.append(max(largest, float(weight.budget.max_sum)))
        self._narrow(
            1.0 if self._first == [float(w.budget.max_sum) for w in self.weights if w.budget] else 0.0
        )

    def before(self, step: int, done: float) -> None:  # noqa: ARG002
        """See ``Callback``."""
        if not self._done and done >= BEGIN_SHARE:
            self._narrow(min(1.0, (done - BEGIN_SHARE) / (END_SHARE - BEGIN_SHARE)))

    def complete(self, done: float) -> bool:  # noqa: ARG002
        """See ``Callback``."""
        return self._done

    def finish(self) -> None:
        """See ``Callback``."""
        self._narrow(1.0)

    def penalty(self, batch: Samples) -> torch.Tensor | None:  # noqa: ARG002
        """See ``Callback``."""
        found = [torch.zeros(())]
        for weight in self.weights:
            assert weight.budget is not None
            sums = weight.budget.sums(weight.latent * weight.mask)
            found.append(torch.relu(sums / weight.budget.now - 1.0).mean())
        return self.strength * torch.stack(found).sum()

    def _narrow(self, progress: float) -> None:
        for weight, first in zip(self.weights, self._first, strict=True):
            assert weight.budget is not None
            most = weight.budget.max_sum
            weight.budget.now = most + (first - most) * (1.0 - progress) ** 3
        self._done = progress >= 1.0
