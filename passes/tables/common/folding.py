"""A value that turned out to be constant: what follows from it is computed now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir import runtime
from ....ir.graph import variable_inputs
from ....ir.integer_editing import IntegerEditor
from ....ir.ops import Decrypt
from .absorb import minimal
from .moves import sample_shape


@dataclass(frozen=True)
class Replacement:
    """An operand of an addition that becomes a constant of one sample."""

    node: ir.Node
    index: int
    array: np.ndarray


def plan(model: ir.Model, value: ir.Value, sample: np.ndarray) -> list[Replacement] | None:
    """Where a constant value ends: in additions with values that are not constant.

    Returns:
        What to replace; None where the constant reaches a Decrypt or an operator that cannot take it in.
    """
    opset = model.graph.opset_imports.get("", 21)
    known = {value: sample[None].astype(np.float32)}
    found: list[Replacement] = []
    for node in model.graph:
        given = {v: known[v] for v in node.inputs if v is not None and v in known}
        if not given:
            continue
        if Decrypt.match(node):
            return None
        if any(o.is_graph_output() for o in node.outputs):
            return None
        if all(v in known for v in variable_inputs(node)):
            try:
                known.update(
                    zip(node.outputs, runtime.run_nodes([node], given, node.outputs, opset), strict=True)
                )
            except Exception:  # noqa: BLE001 - an operator that does not run on one sample alone
                return None
            continue
        if node.domain != "" or node.op_type not in {"Add", "Sub"}:
            return None
        found.extend(
            Replacement(node, i, known[v]) for i, v in enumerate(node.inputs) if v is not None and v in known
        )
    return found


def apply(found: list[Replacement], edit: IntegerEditor) -> None:
    """Put the constants in place; what computed them is left without readers."""
    for item in found:
        other = variable_inputs(item.node)
        shape = sample_shape(item.node.outputs[0])
        array = item.array
        if all(sample_shape(v) == shape for v in other) and array.shape[1:] == shape:
            array = minimal(array[0])
        name = f"{item.node.name}_constant"
        item.node.replace_input_with(item.index, edit.constant(name, array))
