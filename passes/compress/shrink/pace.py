"""How long to train: steps and batches by the size of the network, so that large ones take no longer.

Nothing here looks at a clock: a network is trained the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ....analysis.cost.cost import work
from ..remove_layers.search import bootstraps

STEP_MILLISECONDS = 4.0
"""Time of one training step on one core, besides what goes with its samples."""
TABLE_MILLISECONDS = 1.0e-4
"""Time on one core of each element that a table reads, for each sample of the batch."""
PRODUCT_MILLISECONDS = 6.0e-7
"""Time on one core of each multiplication, for each sample of the batch."""
MAX_STEPS = 3000
"""Training steps, where time allows them."""
MIN_STEPS = 800
"""Training steps, however long they take."""
MAX_BATCH = 128
"""Samples of a training step, where they are quick."""
MIN_BATCH = 32
"""Samples of a training step, however slow they are."""
WANTED_SECONDS = 25.0
"""Time that training should take."""
MAX_SECONDS = 200.0
"""Expected time past which training is not begun."""
MAX_SAMPLES_MILLISECONDS = 8.0
"""Time of a step that its samples may take together before the batch becomes smaller."""


@dataclass(frozen=True)
class Pace:
    """How to train a network.

    Attributes:
        steps: Batches.
        batch: Samples in each.
        seconds: What that should take on one quiet core.
    """

    steps: int
    batch: int
    seconds: float

    @classmethod
    def of(cls, model: ir.Model) -> Pace:
        """The pace for a float or qdq model."""
        sample = TABLE_MILLISECONDS * bootstraps(model) + PRODUCT_MILLISECONDS * work(model)
        batch = int(min(MAX_BATCH, max(MIN_BATCH, MAX_SAMPLES_MILLISECONDS / max(sample, 1e-9))))
        step = STEP_MILLISECONDS + batch * sample
        steps = int(min(MAX_STEPS, max(MIN_STEPS, 1000 * WANTED_SECONDS / step)))
        return cls(steps, batch, steps * step / 1000)

    @property
    def too_long(self) -> bool:
        """Whether training would take longer than anybody waits."""
        return self.seconds > MAX_SECONDS
