"""What goes along with training besides the loss: penalties, ranges, masks."""

from __future__ import annotations

import torch

from .samples import Samples


class Callback:
    """Looks on at every batch; by default it does nothing."""

    def before(self, step: int, done: float) -> None:
        """Called before batch number ``step``; ``done`` is the share of all batches that lie behind."""

    def capturing(self) -> bool:
        """Whether ``penalty`` wants the accumulators of the batch."""
        return False

    def penalty(self, batch: Samples) -> torch.Tensor | None:  # noqa: ARG002
        """What is added to the loss of the batch."""
        return None

    def after(self, step: int, done: float) -> None:
        """Called when the gradients of a batch are known and the parameters have followed them."""

    def complete(self, done: float) -> bool:  # noqa: ARG002
        """Whether a state of now may be the result."""
        return True

    def finish(self) -> None:
        """Bring the student at once to where a state may be the result: training ends early."""
