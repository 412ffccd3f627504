"""How long to train: steps and batches by the size of the network, so that large ones take no longer.

Nothing here looks at a clock: a network is trained the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ....analysis.cost.cost import work
from ..remove_layers.search import bootstraps

FIXED, OF_TABLE, OF_PRODUCT = 4.0, 1.0e-4, 6.0e-7
"""Milliseconds of one core: of a step, of an element that a table reads, of a multiplication; of the last two
for each sample of the batch."""
STEPS, FEWEST = 3000, 800
BATCH, SMALLEST = 128, 32
WANTED, MOST = 25.0, 200.0
"""Seconds that training should take, and those past which it is not begun."""
SHARED = 8.0
"""Milliseconds of a step that samples may take together before the batch becomes smaller."""


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
        sample = OF_TABLE * bootstraps(model) + OF_PRODUCT * work(model)
        batch = int(min(BATCH, max(SMALLEST, SHARED / max(sample, 1e-9))))
        step = FIXED + batch * sample
        steps = int(min(STEPS, max(FEWEST, 1000 * WANTED / step)))
        return cls(steps, batch, steps * step / 1000)

    @property
    def too_long(self) -> bool:
        """Whether training would take longer than anybody waits."""
        return self.seconds > MOST
