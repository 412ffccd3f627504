"""Where scales go: absorbed by the next layer's weights, or made commensurate where tensors are added."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ..analysis.linear import Linear, constant_of, linear_of
from ..analysis.regions import JOINS, LAYOUT, POOLS
from .weights import candidate_scales

RATIOS = range(1, 17)


def absorbers(value: ir.Value, server: set[ir.Node]) -> list[tuple[ir.Node, list[ir.Node]]] | None:
    """The linear layers that read ``value``, each with the layout operators between.

    None where something else reads it too, so that a scale per channel cannot vanish in weights.
    """
    found: list[tuple[ir.Node, list[ir.Node]]] = []
    pending: list[tuple[ir.Value, list[ir.Node]]] = [(value, [])]
    while pending:
        current, path = pending.pop()
        if current.is_graph_output():
            return None
        for use in current.uses():
            reader = use.node
            if reader not in server:
                return None
            if linear_of(reader) is not None and use.idx == 0:
                if reader.op_type == "MatMul" and current.shape is not None and len(current.shape) != 2:
                    return None
                found.append((reader, path))
            elif reader.op_type in LAYOUT or reader.op_type in {"GlobalAveragePool", "AveragePool"}:
                pending.append((reader.outputs[0], [*path, reader]))
            else:
                return None
    return found or None


def absorb(value: ir.Value, server: set[ir.Node], scale: np.ndarray, opset: int) -> None:
    """Multiply the weights of every reader by the scale of the input that each weight meets.

    Args:
        value: The tensor that gets a scale for each entry of axis 1.
        server: The encrypted nodes.
        scale: (channels).
        opset: ai.onnx opset of the model.
    """
    shape = [d if isinstance(d, int) else 1 for d in value.shape or []]
    shape[0] = 1
    spread = np.broadcast_to(scale.astype(np.float32).reshape([1, -1] + [1] * (len(shape) - 2)), shape).copy()
    for reader, path in absorbers(value, server) or []:
        arriving = spread
        if path:
            (arriving,) = runtime.run_nodes(path, {value: spread}, [path[-1].outputs[0]], opset)
        linear = linear_of(reader)
        assert linear is not None
        _scale_weight(linear, arriving)


def _scale_weight(linear: Linear, arriving: np.ndarray) -> None:
    weight = linear.weight.astype(np.float64)
    if linear.node.op_type == "Gemm":
        scaled = weight * arriving.reshape(1, -1)
    elif linear.node.op_type == "MatMul":
        scaled = weight * arriving.reshape(-1, 1)
    else:
        channels = arriving[0].reshape(arriving.shape[1], -1).mean(axis=1)
        groups = channels.reshape(linear.groups, -1)
        per_row = np.repeat(groups, len(weight) // linear.groups, axis=0)
        scaled = weight * per_row.reshape(*per_row.shape, *[1] * (weight.ndim - 2))
    old = linear.node.inputs[1]
    assert old is not None
    new = ir.Value(
        name=f"{linear.node.name}_absorbed",
        const_value=ir.tensor(scaled.astype(np.float32)),
        type=old.type,
        shape=old.shape,
    )
    graph = linear.node.graph
    assert isinstance(graph, ir.Graph)
    new.name = _free(graph, str(new.name))
    graph.register_initializer(new)
    linear.node.replace_input_with(1, new)


def _free(graph: ir.Graph, name: str) -> str:
    while name in graph.initializers:
        name += "_"
    return name


def commensurate(weights: np.ndarray, bits: int, unit: np.ndarray) -> np.ndarray:
    """Weight scales whose accumulator adds to another tensor without a multiplier that is no integer.

    Args:
        weights: (out, in).
        bits: Width of the weights.
        unit: The other tensor's scale over this layer's input scale: () or (out).

    Returns:
        (candidates, out): ``unit`` times or divided by a small integer.
    """
    whole = np.maximum(candidate_scales(weights, bits, "min-max")[0], 1e-12)
    unit = np.broadcast_to(np.abs(unit), whole.shape)
    # The divisor that comes nearest to the natural scale of each channel, and those around it: finer and
    # coarser.
    natural = unit / whole
    tried = []
    for factor in (0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0):
        wanted = natural * factor
        divided = unit / np.maximum(1, np.rint(wanted))
        multiplied = unit * np.maximum(1, np.rint(1 / np.maximum(wanted, 1e-12)))
        tried.append(np.where(wanted >= 1, divided, multiplied))
    return np.stack(tried)


class Units:
    """What one integer step of each tensor is worth, as far as it is known on the way through the graph."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, np.ndarray] = {}

    def set(self, value: ir.Value, unit: float | np.ndarray) -> None:
        """Record the unit of a tensor: () or (channels)."""
        self._known[value] = np.asarray(unit, np.float64)

    def of(self, value: ir.Value | None) -> np.ndarray:
        """The unit of a tensor; 1 where it is not known."""
        return self._known.get(value, np.asarray(1.0)) if value is not None else np.asarray(1.0)

    def visit(self, node: ir.Node, linear: Linear | None) -> None:
        """Carry units through layout, pooling and additions."""
        if linear is not None or not node.inputs:
            return
        known = [self._known[v] for v in node.inputs if v in self._known]
        if not known:
            return
        output = node.outputs[0]
        if node.op_type in LAYOUT and known[0].ndim == 0:
            self.set(output, known[0])
        elif node.op_type in POOLS and known[0].ndim == 0 and node.op_type == "AveragePool":
            self.set(output, known[0] / float(np.prod(node.attributes.get_ints("kernel_shape", [1]))))
        elif node.op_type in JOINS and len(known) == 2:
            self.set(output, np.minimum(*np.broadcast_arrays(*known)))
        elif node.op_type == "Add" and any(constant_of(v) is not None for v in node.inputs):
            self.set(output, known[0])

    def reference(self, node: ir.Node) -> np.ndarray | None:
        """The unit of what this layer's output is added to, where that is known already."""
        for reader in node.outputs[0].consumers():
            if reader.op_type not in JOINS:
                continue
            for other in reader.inputs:
                if other is not node.outputs[0] and other in self._known:
                    return self._known[other]
        return None
