"""What is trained and scored on, as tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Samples:
    """What to train or score on.

    Attributes:
        inputs: In graph order, samples on axis 0.
        answers: The teacher's.
        targets: Probabilities of classes by label, where labels are used; zeros where a sample has none.
        given: How many, from the first on, are calibration samples as they are.
        given_share: Share of each batch that is taken from those alone.
        inner: What the teacher's layers put out, where they are matched.
    """

    inputs: list[torch.Tensor]
    answers: list[torch.Tensor]
    targets: torch.Tensor | None
    given: int
    given_share: float = 0.0
    inner: list[torch.Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, index: torch.Tensor) -> Samples:
        """Some of them."""
        return Samples(
            [x[index] for x in self.inputs],
            [a[index] for a in self.answers],
            None if self.targets is None else self.targets[index],
            len(index),
            inner=[v[index] for v in self.inner],
        )
