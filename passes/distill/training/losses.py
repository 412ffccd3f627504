"""What the student imitates: softened class scores, or values."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as f

from ....analysis.outputs.classes import Kind


class Loss:
    """The distance of the student's answers from the teacher's.

    Args:
        kind: Kind of the outputs.
        temperature: Softens class scores (Hinton et al., "Distilling the Knowledge in a Neural Network",
            2015).
        answers: The teacher's on the calibration data: their variance is the unit of squared errors.
        label_share: Weight of the true labels, where they are used.
    """

    def __init__(self, kind: Kind, temperature: float, answers: list[np.ndarray], label_share: float) -> None:
        self.kind, self.temperature, self.label_share = kind, temperature, label_share
        self.variance = [float(a.var()) + 1e-12 for a in answers]

    def __call__(
        self,
        student: list[torch.Tensor],
        teacher: list[torch.Tensor],
        targets: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss of a batch.

        Args:
            student, teacher: Their answers.
            targets: Probabilities of the classes by label; zeros for samples without one.
        """
        squares = [((s - t) ** 2).mean() / v for s, t, v in zip(student, teacher, self.variance, strict=True)]
        squared = torch.stack(squares).mean()
        if self.kind == "values":
            return squared
        t = self.temperature
        wanted = f.softmax(teacher[0] / t, dim=1)
        soft = f.kl_div(f.log_softmax(student[0] / t, dim=1), wanted, reduction="batchmean") * t * t
        loss = soft + 0.2 * squared
        if targets is not None and self.label_share:
            hard = -(targets * f.log_softmax(student[0], dim=1)).sum()
            loss = (1 - self.label_share) * loss + self.label_share * hard / targets.sum().clamp(min=1.0)
        return loss


def agreement(
    kind: Kind,
    student: list[torch.Tensor],
    teacher: list[torch.Tensor],
    targets: torch.Tensor | None = None,
) -> float:
    """Share of samples with the teacher's class (or the label's), or of the variance that is explained."""
    if kind == "classes":
        wanted = teacher[0] if targets is None else targets
        return float((student[0].argmax(dim=1) == wanted.argmax(dim=1)).float().mean())
    lost = [
        float(((s - t) ** 2).mean() / (t.var(unbiased=False) + 1e-12))
        for s, t in zip(student, teacher, strict=True)
    ]
    return 1.0 - float(np.mean(lost))
