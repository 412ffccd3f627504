"""What the teacher computes inside, for a student whose layers have the same names."""

from __future__ import annotations

import onnx_ir as ir
import torch

from ....ir.graph import LINEAR
from .callbacks import Callback
from .samples import Samples
from .student import Student

MAX_MATCHED_BYTES = 256 << 20
"""Memory for the values of layers on all samples; layers past it are not matched."""


def matched_layers(student: ir.Model, teacher: ir.Model, samples: int) -> list[str]:
    """The names of linear layers that both have, with outputs of one shape; not those that are outputs.

    Args:
        student, teacher: The models.
        samples: For how many the values are to be kept.
    """
    known = {n.name: n.outputs[0] for n in teacher.graph if n.op_type in LINEAR and n.name}
    outputs = {*teacher.graph.outputs}
    found, left = [], MAX_MATCHED_BYTES
    for node in student.graph:
        theirs = known.get(node.name or "")
        if theirs is None or node.op_type not in LINEAR or theirs in outputs:
            continue
        sizes = [_size(v) for v in (node.outputs[0], theirs)]
        if sizes[0] is not None and sizes[0] == sizes[1] and 4 * samples * _count(sizes[0]) <= left:
            left -= 4 * samples * _count(sizes[0])
            found.append(str(node.name))
    return found


def layer_values(model: ir.Model, names: list[str]) -> list[ir.Value]:
    """The outputs of the named layers."""
    known = {n.name: n.outputs[0] for n in model.graph}
    return [known[n] for n in names]


def _size(value: ir.Value) -> tuple[int, ...] | None:
    dims = list(value.shape or [])[1:]
    return tuple(d for d in dims if isinstance(d, int)) if all(isinstance(d, int) for d in dims) else None


def _count(size: tuple[int, ...]) -> int:
    count = 1
    for d in size:
        count *= d
    return count


class Matching(Callback):
    """The squared distance from the teacher inside (FitNets, Romero et al. 2015, 1412.6550), over variances.

    It fades while training goes on: in the end only the outputs count.

    Args:
        student: The student.
        names: Layers to match.
        samples: All samples, for the variances.
        strength: Weight of the term at the beginning.
    """

    def __init__(self, student: Student, names: list[str], samples: Samples, strength: float) -> None:
        values = layer_values(student.model, names)
        self.pairs = list(zip(values, samples.inner, strict=True))
        self.variances = [float(t.var()) + 1e-12 for _, t in self.pairs]
        self.student, self.strength, self._now = student, strength, strength
        student.watched.update(values)

    def before(self, step: int, done: float) -> None:  # noqa: ARG002
        """See ``Callback``."""
        self._now = self.strength * (1.0 - done)

    def capturing(self) -> bool:
        """See ``Callback``."""
        return bool(self.pairs)

    def penalty(self, batch: Samples) -> torch.Tensor | None:
        """See ``Callback``."""
        if not self.pairs:
            return None
        found = [
            ((self.student.captured[value] - wanted) ** 2).mean() / variance
            for (value, _), wanted, variance in zip(self.pairs, batch.inner, self.variances, strict=True)
        ]
        return self._now * torch.stack(found).mean()
