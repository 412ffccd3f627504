"""How the layers behind a table depend on it: a matrix, found by running them on unit inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import linear_of
from ....ir import runtime
from ....ir.graph import LAYOUT, variable_inputs
from ....ir.ops import Decrypt, TableLookup

LINEAR_PATH = LAYOUT | {"Add", "Sub", "Mul", "Neg", "ReduceSum"}
FOREIGN_VARIANCE_SHARE = 0.5
"""Where layers miss this share of the float model's variance, they do not compute what it computes."""
MAX_MATRIX_ENTRIES = 2**24
"""Entries of that matrix, and of the residual: larger layers are left alone."""


@dataclass(frozen=True)
class Problem:
    """The least-squares problem of one layer of tables.

    Attributes:
        inputs: (samples, elements) integers that enter the tables.
        outputs: (samples, elements) integers that they put out.
        matrix: (elements, readings): what each output adds to each accumulator, in the float model's units.
        residual: (samples, readings): what the float model has more than the accumulators, in those units.
        scale: Total variance of the readings.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    matrix: np.ndarray
    residual: np.ndarray
    scale: float

    @property
    def error(self) -> float:
        """Mean squared residual over the variance of what is wanted."""
        return float((self.residual.astype(np.float64) ** 2).sum() / len(self.residual) / self.scale)


@dataclass(frozen=True)
class Reading:
    """A table, the linear operators that read it, and the nodes between.

    Attributes:
        table: The TableLookup.
        path: The nodes from its output to the linear operators, in order.
        ends: The linear operators, each with the float model's values of its output.
    """

    table: ir.Node
    path: list[ir.Node]
    ends: list[tuple[ir.Node, np.ndarray]]

    @staticmethod
    def of(model: ir.Model, table: ir.Node, wanted: Mapping[str, np.ndarray]) -> Reading | None:
        """The reading of a table; None where a reader is not linear or has no float counterpart."""
        reached: set[ir.Node] = set()
        pending, ends = [table.outputs[0]], []
        while pending:
            value = pending.pop()
            if value.is_graph_output():
                return None
            for node in value.consumers():
                if node in reached:
                    continue
                reached.add(node)
                if linear_of(node) is not None:
                    target = wanted.get(str(node.name))
                    if target is None or not _same_shape(node.outputs[0], target):
                        return None
                    ends.append((node, target))
                elif node.domain == "" and node.op_type in LINEAR_PATH and _is_linear(node):
                    pending.append(node.outputs[0])
                else:
                    return None
        path = [n for n in model.graph if n in reached]
        return Reading(table, path, ends) if ends else None

    def problem(self, model: ir.Model, data: Mapping[str, np.ndarray]) -> Problem | None:
        """What the table should mend, on calibration data.

        None where it would take too much memory, or where the readers do not follow the float model.
        """
        x, y = self.table.inputs[0], self.table.outputs[0]
        assert x is not None
        size = _elements(y)
        readings = sum(_elements(n.outputs[0]) for n, _ in self.ends)
        samples = len(next(iter(data.values())))
        if max(size, samples) * readings > MAX_MATRIX_ENTRIES:
            return None
        wanted = [x, y, *(n.outputs[0] for n, _ in self.ends)]
        found = runtime.Session(model, [str(v.name) for v in dict.fromkeys(wanted)]).run_batched(data)
        units = self._matrix(model)
        columns, residuals, scale = [], [], 0.0
        for (node, target), unit in zip(self.ends, units, strict=True):
            accumulator = found[str(node.outputs[0].name)]
            axis = (-1 if node.op_type == "MatMul" else 1) % target.ndim
            gain, residual, variance = _compare(accumulator, target, axis)
            columns.append((unit * gain).reshape(size, -1))
            residuals.append(residual.reshape(samples, -1))
            scale += variance
        made = Problem(
            found[str(x.name)].reshape(samples, -1),
            found[str(y.name)].reshape(samples, -1),
            np.concatenate(columns, axis=1),
            np.concatenate(residuals, axis=1),
            max(scale, 1e-30),
        )
        return made if made.error < FOREIGN_VARIANCE_SHARE else None

    def _matrix(self, model: ir.Model) -> list[np.ndarray]:
        """For each end what one more in each output of the table adds to it: (elements, *output)."""
        y, opset = self.table.outputs[0], model.graph.opset_imports.get("", 21)
        size, shape = _elements(y), _shape(y)
        produced = {o for n in self.path for o in n.outputs} | {y}
        others = {v for n in self.path for v in variable_inputs(n)} - produced
        values = {v: np.zeros((size + 1, *_shape(v)), np.float32) for v in others}
        values[y] = np.concatenate([np.eye(size, dtype=np.float32), np.zeros((1, size), np.float32)]).reshape(
            -1, *shape
        )
        outputs = [n.outputs[0] for n, _ in self.ends]
        found = runtime.run_nodes(self.path, values, outputs, opset)
        return [f[:-1] - f[-1:] for f in found]


def _compare(accumulator: np.ndarray, target: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Gain by channel (broadcastable to the tensor), what is missing, and the target's variance, summed."""
    others = tuple(i for i in range(target.ndim) if i != axis)
    a, z = accumulator.astype(np.float64), target.astype(np.float64)
    mean_a, mean_z = a.mean(axis=others, keepdims=True), z.mean(axis=others, keepdims=True)
    a, z = a - mean_a, z - mean_z
    power = (a * a).mean(axis=others, keepdims=True)
    gain = (a * z).mean(axis=others, keepdims=True) / np.where(power > 0, power, 1.0)
    elements = z[0].size
    variance = float((z * z).mean()) * elements
    return gain.astype(np.float32), (z - gain * a).astype(np.float32), variance


def _is_linear(node: ir.Node) -> bool:
    """Whether an operator of the path is linear in what varies: no product of two tensors."""
    return node.op_type != "Mul" or len(variable_inputs(node)) == 1


def _same_shape(value: ir.Value, array: np.ndarray) -> bool:
    return (
        value.shape is not None and len(value.shape) == array.ndim and _shape(value) == list(array.shape[1:])
    )


def _shape(value: ir.Value) -> list[int]:
    """The shape of one sample."""
    return [int(d) if isinstance(d, int) else 1 for d in list(value.shape or [])[1:]]


def _elements(value: ir.Value) -> int:
    return int(np.prod(_shape(value)))


def declarations(model: ir.Model) -> list[TableLookup | Decrypt]:
    """What declares the range of an accumulator: tables and Decrypts, in order."""
    found = (TableLookup.match(n) or Decrypt.match(n) for n in model.graph)
    return [d for d in found if d is not None]
