"""What can be computed now is computed now, by onnxruntime; what does nothing goes."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass
from onnxscript import optimizer

from ...ir import runtime
from ...ir.errors import UnsupportedError
from ...ir.graph import constant_of, int_of
from . import shapes
from .edit import bypass, constant, set_constant

_RANDOM = frozenset(
    {
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Dropout",
    }
)
_LEFT = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Identity"})
_MOST_ELEMENTS = 2**24


def fold_shapes(model: ir.Model) -> bool:
    """Compute what depends on shapes alone (Shape-Gather-Concat-Reshape); returns whether there was any."""
    # Small constants and symbolic shapes are what onnxscript does well; weights are for fold_constants.
    folded = optimizer.fold_constants(model, onnx_shape_inference=False).modified
    lifted = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model).modified
    unused = RemoveUnusedNodesPass()(model).modified
    return bool(folded or lifted or unused)


def fold_constants(model: ir.Model) -> bool:
    """Run nodes that read only initializers and keep their results as initializers."""
    modified = False
    for node in list(model.graph):
        if not _foldable(node):
            continue
        wanted = [o for o in node.outputs if o.name]
        arrays = runtime.run_nodes([node], {}, wanted, model.opset_imports.get("", 0))
        for output, array in zip(wanted, arrays, strict=True):
            name = str(output.name)
            output.name = f"{name}_folded"
            output.replace_all_uses_with(constant(model.graph, array, name))
        model.graph.remove(node, safe=True)
        modified = True
    return modified


def _foldable(node: ir.Node) -> bool:
    if node.domain or node.op_type in _RANDOM | _LEFT or not node.inputs:
        return False
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return False
    constants = [constant_of(v) for v in node.inputs if v is not None]
    if not constants or any(c is None or c.dtype.kind not in "fiub" for c in constants):
        return False
    for output in node.outputs:
        static = shapes.static_of(output)
        if output.is_graph_output() or (
            output.name and (static is None or math.prod(static) > _MOST_ELEMENTS)
        ):
            return False
    return True


def make_reshape_constant(model: ir.Model, node: ir.Node) -> bool:
    """A Reshape to a computed shape, of which only the batch is free, becomes one to a constant shape."""
    if node.op_type != "Reshape" or node.domain or constant_of(node.inputs[1]) is not None:
        return False
    dims = shapes.dims_of(node.outputs[0])
    if dims is None or 0 in dims or dims.count(shapes.BATCH) > 1:
        return False
    if not all(isinstance(d, int) or d == shapes.BATCH for d in dims):
        return False
    target = np.array([d if isinstance(d, int) else -1 for d in dims], np.int64)
    set_constant(model.graph, node, 1, target, f"{node.name}.shape")
    return True


def remove_noop(_: ir.Model, node: ir.Node) -> bool:
    """Remove Identity, Dropout, a Cast to the same type and a Transpose that keeps the order.

    Raises:
        UnsupportedError: A Dropout is in training mode.
    """
    value = node.inputs[0] if node.inputs else None
    if node.domain or value is None:
        return False
    if node.op_type == "Dropout":
        _check_dropout(node)
        return bypass(node, value)
    if node.op_type == "Identity":
        return bypass(node, value)
    if node.op_type == "Cast" and value.dtype is not None and int_of(node, "to", 0) == int(value.dtype):
        return bypass(node, value)
    if node.op_type == "Transpose" and "perm" in node.attributes:
        order = list(node.attributes["perm"].as_ints())
        return order == sorted(order) and bypass(node, value)
    return False


def _check_dropout(node: ir.Node) -> None:
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    array = constant_of(mode)
    if mode is not None and (array is None or array.any()):
        raise UnsupportedError(
            "a Dropout is in training mode: it drops at random",
            node=node.name or "",
            op="Dropout",
            found="training_mode is true" if array is not None else "training_mode is computed",
            allowed="inference mode",
            do="export the model in eval mode",
        )
