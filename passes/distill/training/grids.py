"""Scales of inputs, found by looking.

Where inputs are few, a border between classes wants to lie between two cells of their grid. A gradient that
passes rounding as if it were not there does not see that, and what it does to a scale loses the border again:
on a grid of 32 cells one percent is enough. So scales are looked for before the first step, and then stand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .callbacks import Callback
from .losses import Loss
from .quantizers import FakeActivation
from .samples import Samples
from .student import Student

SCALE_REACH = 0.25
"""How far scales are moved to either side at most, in their natural logarithm."""
TRIED_SCALES = 201
"""How many scales are tried."""
MAX_SAMPLES = 10_000
"""Most calibration samples that are looked at."""


class Grids(Callback):
    """Sets the scales of inputs to where the teacher, reading through their grids, loses the least.

    That does not depend on what the student has learned. It is done for inputs that quantizers read as they
    are; scales behind operators that the client computes are learned like those of activations.

    Args:
        student: Its scales of inputs are set before the first step, and are not learned.
        samples: The first ``given`` of them are used.
        loss: What is to become the least.
        teacher: Its answers for inputs in graph order.
    """

    def __init__(
        self,
        student: Student,
        samples: Samples,
        loss: Loss,
        teacher: Callable[[list[torch.Tensor]], list[torch.Tensor]],
    ) -> None:
        self.loss, self.teacher = loss, teacher
        self.samples = samples.take(torch.arange(min(samples.given, MAX_SAMPLES)))
        self._grids: dict[int, FakeActivation] = {}
        for index, value in enumerate(student.model.graph.inputs):
            reading = [student.activations[q.dequantize] for q in student.quantizers if q.source is value]
            if len(reading) == 1 and reading[0].free:
                self._grids[index] = reading[0]
                reading[0].log_scale.requires_grad_(False)

    def before(self, step: int, done: float) -> None:  # noqa: ARG002
        """See ``Callback``."""
        if step == 0:  # not earlier: the student as it came is a candidate
            for grid in self._grids.values():
                self._look(grid.log_scale)

    @torch.no_grad()
    def _look(self, scale: torch.Tensor) -> None:
        first = scale.clone()
        # The nearest first: it stays where nothing is better.
        tried = sorted(np.linspace(-SCALE_REACH, SCALE_REACH, TRIED_SCALES), key=abs)
        losses = []
        for move in tried:
            scale.copy_(first + float(move))
            read = [self._grids[i](x) if i in self._grids else x for i, x in enumerate(self.samples.inputs)]
            losses.append(float(self.loss(self.teacher(read), self.samples.answers, self.samples.targets)))
        scale.copy_(first + float(tried[int(np.argmin(losses))]))
