"""Penalties that make the circuit cheaper: narrow accumulators, light weights, ranges that are used."""

from __future__ import annotations

import torch

from .companion import Companion
from .quantizers import FakeWeight
from .samples import Samples
from .student import Student

FILLED = 3.0
"""Standard deviations that a range may be wide without penalty."""


class Norms(Companion):
    """How far integer weights behind tables exceed the norm at which bootstraps get dearer."""

    def __init__(self, student: Student) -> None:
        self.student = student

    def penalty(self, batch: Samples) -> torch.Tensor | None:  # noqa: ARG002
        """See ``Companion``."""
        found = [torch.zeros(())]
        for rows, limit in self.student.norms():
            norm = ((rows**2).sum(dim=1) + 1e-6).sqrt()
            found.append(torch.relu(norm / limit - 1.0).square().sum())
        return torch.stack(found).sum()


class Spread(Companion):
    """How much wider the accumulators range than their bulk: a lattice spends its points on all of it."""

    def __init__(self, student: Student, strength: float) -> None:
        self.student, self.strength = student, strength

    def capturing(self) -> bool:
        """See ``Companion``."""
        return True

    def penalty(self, batch: Samples) -> torch.Tensor | None:  # noqa: ARG002
        """See ``Companion``."""
        found = []
        for table in self.student.tables:
            z = self.student.captured[table.base]
            axis = table.lattice.axis
            columns = z.movedim(axis, -1).reshape(-1, z.shape[axis])
            spread = columns.std(dim=0) + 1e-3 * columns.std() + 1e-6
            span = columns.amax(dim=0) - columns.amin(dim=0)
            found.append(torch.relu(span / spread.detach() - FILLED).mean())
        return self.strength * torch.stack(found).mean() if found else None


class Widths(Companion):
    """How far neurons exceed the sum of weights with which their accumulator fits.

    What exceeds it is cut off in every step (``Budget``); the penalty draws weights to where little is cut.
    """

    def __init__(self, weights: list[FakeWeight], strength: float) -> None:
        self.weights, self.strength = weights, strength

    def penalty(self, batch: Samples) -> torch.Tensor | None:  # noqa: ARG002
        """See ``Companion``."""
        found = [torch.zeros(())]
        for weight in self.weights:
            if weight.budget is not None:
                sums = weight.budget.sums(weight.latent * weight.mask)
                found.append(torch.relu(sums / weight.budget.most - 1.0).mean())
        return self.strength * torch.stack(found).sum()
