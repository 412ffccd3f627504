"""Gradual removal of neurons: by their importance for the loss while training, then from the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from ....ir.editing import GraphEditor
from ....ir.graph import constant_of
from ...compress.remove_neurons.adapt import size_at
from ...compress.remove_neurons.criteria import Known, choose
from ...compress.remove_neurons.goal import Goal, RemovalTarget, names_of, unit_times
from ...compress.remove_neurons.shrink import shrink
from ...compress.remove_neurons.structure import Structure, Unit, find_structure
from .callbacks import Callback
from .reading import base_of, quantizers, weight_nodes
from .student import Student

if TYPE_CHECKING:
    from ...framework.base import Context

BEGIN_SHARE = 0.1
"""Share of the steps (of this part of the training) after which the first neurons go."""
END_SHARE = 0.9
"""Share of the steps after which all have gone."""
REMOVAL_INTERVAL = 25
"""Steps between two looks at which neurons matter the least."""
IMPORTANCE_DECAY = 0.95
"""Share of the importance of one step that is left in the next."""


def find_units(model: ir.Model) -> Structure:
    """The neurons and channels of a qdq model that can be removed, with all that is coupled to them."""
    with _plain_weights(model):
        return find_structure(model)


class Removal(Callback):
    """Removes neurons while the student trains: first their outputs become zero, a few at a time.

    A neuron matters as much as the loss would change without it: to first order the square of the sum of
    what it puts out times the gradient of the loss there (Molchanov et al. 2019, 1906.10771), accumulated
    over the steps.

    Args:
        student: The student.
        structure: Its units (``find_units``).
        target: How much has to go in the end.
        context: For the timings, where a latency is asked for.
    """

    def __init__(
        self, student: Student, structure: Structure, target: RemovalTarget, context: Context
    ) -> None:
        self.structure, self.target = structure, target
        self.gone: list[Unit] = []
        self._place = {u.number: i for i, u in enumerate(structure.units)}
        self._gate = torch.ones(len(structure.units), requires_grad=True)
        self._alive = torch.ones(len(structure.units) + 1)
        self._importance = np.zeros(len(structure.units))
        self._times, self._total = dict[int, float](), 0.0
        self._finished = False
        if target.latency is not None:
            bases = dict.fromkeys(base_of(q.source) for q in quantizers(student.model))
            tables = [b for b in bases if student.encrypted(b)]
            self._times, self._total = unit_times(student.model, structure, context.target.timings, tables)
        for node, linear in structure.linears.items():
            value, index = node.inputs[0], None
            for unit in structure.units:
                if node in unit.readers:
                    assert value is not None
                    axis, _ = unit.places[value]
                    if index is None:
                        index = torch.full((size_at(value, axis),), len(structure.units))
                    index[torch.from_numpy(unit.readers[node])] = self._place[unit.number]
            if index is not None:
                rank = len(value.shape or []) if value is not None else 0
                at = -1 if node.op_type == "MatMul" else 1
                shape = [-1 if i == at % rank else 1 for i in range(rank)]
                student.gates[linear.node] = partial(self._factor, index, shape)

    def _factor(self, index: torch.Tensor, shape: list[int]) -> torch.Tensor:
        """1 for channels that are there, 0 for those that have gone; with a gradient."""
        return (torch.cat([self._gate, torch.ones(1)]) * self._alive)[index].reshape(shape)

    def before(self, step: int, done: float) -> None:
        """See ``Callback``."""
        if not self._finished and step % REMOVAL_INTERVAL == 0 and done >= BEGIN_SHARE:
            self._remove(min(1.0, (done - BEGIN_SHARE) / (END_SHARE - BEGIN_SHARE)))

    def after(self, step: int, done: float) -> None:  # noqa: ARG002
        """See ``Callback``."""
        if self._gate.grad is not None:
            self._importance = IMPORTANCE_DECAY * self._importance + self._gate.grad.numpy() ** 2
            self._gate.grad = None

    def complete(self, done: float) -> bool:  # noqa: ARG002
        """See ``Callback``."""
        return self._finished

    def finish(self) -> None:
        """See ``Callback``."""
        self._remove(1.0)

    def _remove(self, progress: float) -> None:
        share = 1.0 - (1.0 - progress) ** 3
        latency = self.target.latency
        now = replace(
            self.target,
            ratio=self.target.ratio * share,
            layers={k: v * share for k, v in self.target.layers.items()},
            latency=None if latency is None else self._total + (latency - self._total) * share,
        )
        goal = Goal(self.structure, now, self._times, self._total)
        for unit in self.gone:
            goal.remove(unit)
        gone = {u.number for u in self.gone}
        left = [u for u in self.structure.units if u.number not in gone]
        costs = dict(zip(self._place, self._importance, strict=True))
        self.gone += choose(left, Known(costs), goal)
        for unit in self.gone:
            self._alive[self._place[unit.number]] = 0.0
        self._finished = progress >= 1.0

    def notes(self) -> str:
        """What went, for the user."""
        parts = []
        for layer, units in self.structure.layers().items():
            gone = sum(u.layer == layer for u in self.gone)
            if gone:
                parts.append(f"{' and '.join(names_of(layer))} {len(units)} to {len(units) - gone}")
        total = len(self.structure.units)
        return f"distill: removed {len(self.gone)} of {total} neurons or channels: {', '.join(parts)}"


def shrink_quantized(
    model: ir.Model, structure: Structure, gone: Sequence[Unit], zeros: dict[str, np.ndarray]
) -> None:
    """Remove units from a qdq model, in place: integers, scales, biases and shapes get smaller.

    Args:
        model: The model that ``structure`` was found in.
        structure: Its units.
        gone: Those that go.
        zeros: Weights that have to stay zero, by layer; these arrays get smaller, too.
    """
    keep = structure.keep(gone)
    edit = GraphEditor(model)
    with _plain_weights(model) as pairs:
        shrink(model, structure.linears, keep)
        for node, dq in pairs:
            linear, codes = structure.linears[node], constant_of(node.inputs[1])
            old, scale = constant_of(dq.inputs[0]), constant_of(dq.inputs[1])
            assert codes is not None
            assert old is not None
            assert scale is not None
            rows, columns = keep.get(node.outputs[0]), keep.get(node.inputs[0])  # type: ignore[arg-type]
            if codes.shape != old.shape:
                _set(edit, dq, 0, codes.astype(old.dtype))
                dq.outputs[0].shape = ir.Shape(codes.shape)
                if rows is not None and scale.size > 1:
                    _set(edit, dq, 1, rows.of(scale, 0))
            name = str(node.name)
            if name in zeros:
                if rows is not None:
                    zeros[name] = rows.of(zeros[name], linear.out_axis)
                if columns is not None and linear.groups == 1:
                    zeros[name] = columns.of(zeros[name], 1 - linear.out_axis)


@contextmanager
def _plain_weights(model: ir.Model) -> Iterator[list[tuple[ir.Node, ir.Node]]]:
    """Let linear operators read float initializers (of the integers) in place of quantized weights.

    Yields:
        Each linear operator with the DequantizeLinear that it reads again afterwards.
    """
    edit = GraphEditor(model)
    pairs, made = list(weight_nodes(model)), dict[ir.Node, ir.Value]()
    for node, dq in pairs:
        if dq not in made:
            codes = constant_of(dq.inputs[0])
            assert codes is not None
            made[dq] = edit.constant(f"{dq.name}_plain", codes.astype(np.float32))
        node.replace_input_with(1, made[dq])
    try:
        yield pairs
    finally:
        stale = {v for node, _ in pairs if (v := node.inputs[1]) is not None}
        for node, dq in pairs:
            node.replace_input_with(1, dq.outputs[0])
        for value in {*stale, *made.values()}:
            if not value.uses() and value.name in model.graph.initializers:
                del model.graph.initializers[str(value.name)]


def _set(edit: GraphEditor, node: ir.Node, index: int, array: np.ndarray) -> None:
    old = node.inputs[index]
    assert old is not None
    node.replace_input_with(index, edit.constant(f"{old.name}_left", array))
    if not old.uses() and old.name in edit.graph.initializers:
        del edit.graph.initializers[str(old.name)]
