"""Scales of inputs, found by looking.

Where inputs are few, a border between classes wants to lie between two cells of their grid, and a gradient
that passes rounding as if it were not there does not see that.
"""

from __future__ import annotations

import numpy as np
import torch

from .companion import Companion
from .losses import Loss
from .quantizers import FakeActivation
from .samples import Samples
from .student import Student

LOOKS = tuple(np.arange(0.1, 0.75, 0.1))
"""Shares of the steps after which scales are looked at."""
REACH, TRIES = 0.15, 31
"""How far scales are moved (of their logarithm) to either side at most, and how many are tried."""
SAMPLES, GAIN = 2000, 0.995
"""Calibration samples that are looked at, and the share of the loss that a new scale has to fall below."""


class Grids(Companion):
    """Moves the scales of input quantizers to where the loss is the least, all else as it is.

    Args:
        student: The student.
        samples: The first ``given`` of them are used.
        loss: What is to become less.
    """

    def __init__(self, student: Student, samples: Samples, loss: Loss) -> None:
        self.student, self.loss = student, loss
        self.samples = samples.take(torch.arange(min(samples.given, SAMPLES)))
        self._left = list(LOOKS)
        self._scales: list[FakeActivation] = [
            student.activations[q.dequantize]
            for q in student.quantizers
            if not student.encrypted(q.source) and student.activations[q.dequantize].log_scale.requires_grad
        ]

    def before(self, step: int, done: float) -> None:  # noqa: ARG002
        """See ``Companion``."""
        if self._left and done >= self._left[0]:
            self._left.pop(0)
            for activation in self._scales:
                self._look(activation.log_scale)

    @torch.no_grad()
    def _look(self, scale: torch.Tensor) -> None:
        state, first = torch.random.get_rng_state(), scale.clone()
        tried = sorted(np.linspace(-REACH, REACH, TRIES), key=abs)
        losses = []
        for move in tried:
            torch.manual_seed(0)
            scale.copy_(first + float(move))
            answers = self.student(self.samples.inputs)
            losses.append(float(self.loss(answers, self.samples.answers, self.samples.targets)))
        torch.random.set_rng_state(state)
        best = int(np.argmin(losses))
        scale.copy_(first + (float(tried[best]) if losses[best] < GAIN * losses[0] else 0.0))
