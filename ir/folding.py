"""What can be computed now is computed now, by onnxruntime; what does nothing goes."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from . import runtime, shapes
from .editing import GraphEditor
from .errors import UnsupportedError
from .graph import constant_of, int_of, variable_inputs

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
    from onnxscript import optimizer

    # Small constants and symbolic shapes are what onnxscript does well; weights are for fold_constants.
    folded = optimizer.fold_constants(model, onnx_shape_inference=False).modified
    lifted = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model).modified
    edit = GraphEditor(model)
    for node in list(model.graph):
        value = node.attributes.get_tensor("value") if node.op_type == "Constant" else None
        if value is not None:  # it is returned: an initializer cannot stand for an output
            edit.substitute(node, "Identity", [edit.constant(f"{node.name}.value", value.numpy())])
    unused = RemoveUnusedNodesPass()(model).modified
    return bool(folded or lifted or unused)


_SIZES = ("Shape", "Size")


def sizes(model: ir.Model) -> set[ir.Node]:
    """The nodes that compute with nothing but constants and the sizes of tensors."""
    found: set[ir.Node] = set()
    for node in model.graph:
        read = variable_inputs(node)
        if not node.domain and (
            node.op_type in _SIZES or (read and all(v.producer() in found for v in read))
        ):
            found.add(node)
    return found


def freeze_sizes(model: ir.Model) -> bool:
    """Sizes that do not follow the batch are constants, however they are computed; returns whether any were.

    They are found by running the model on two batch sizes.
    """
    values = [
        o
        for n in sizes(model)
        if n.op_type not in _SIZES
        for o in n.outputs
        if o.name and not o.is_graph_output()
    ]
    modified, edit = False, GraphEditor(model)
    for value, array in shapes.same_for_all_batches(model, values).items():
        value.replace_all_uses_with(edit.constant(f"{value.name}_size", array))
        modified = True
    return modified


def merge_reshapes(edit: GraphEditor, node: ir.Node) -> bool:  # noqa: ARG001
    """A Reshape of a Reshape is the second alone, where its target is written out."""
    before = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node.op_type != "Reshape" or node.domain or before is None or before.op_type != "Reshape":
        return False
    target = constant_of(node.inputs[1])
    if before.domain or target is None or 0 in target or before.inputs[0] is None:
        return False
    node.replace_input_with(0, before.inputs[0])
    return True


def fold_constants(model: ir.Model) -> bool:
    """Run nodes that read only initializers and keep their results as initializers."""
    modified, edit = False, GraphEditor(model)
    for node in list(model.graph):
        if not _foldable(node):
            continue
        wanted = [o for o in node.outputs if o.name]
        arrays = runtime.run_nodes([node], {}, wanted, model.opset_imports.get("", 0))
        for output, array in zip(wanted, arrays, strict=True):
            name = str(output.name)
            edit.rename(output, f"{name}_folded")
            output.replace_all_uses_with(edit.constant(name, array))
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


def make_reshape_constant(edit: GraphEditor, node: ir.Node) -> bool:
    """A Reshape to a computed shape, of which only the batch is free, becomes one to a constant shape."""
    if node.op_type != "Reshape" or node.domain or constant_of(node.inputs[1]) is not None:
        return False
    dims = shapes.dims_of(node.outputs[0])
    if dims is None or 0 in dims or dims.count(shapes.BATCH) > 1:
        return False
    if not all(isinstance(d, int) or d == shapes.BATCH for d in dims):
        return False
    target = np.array([d if isinstance(d, int) else -1 for d in dims], np.int64)
    edit.set_constant(node, 1, target, f"{node.name}.shape")
    return True


def make_expand_constant(edit: GraphEditor, node: ir.Node) -> bool:
    """An Expand to a computed shape with the batch of its input becomes one that leaves the batch alone."""
    if node.op_type != "Expand" or node.domain or constant_of(node.inputs[1]) is not None:
        return False
    before, after = shapes.dims_of(node.inputs[0]), shapes.dims_of(node.outputs[0])
    if not before or not after or len(before) != len(after) or before[0] != after[0] or 0 in after:
        return False
    if not all(isinstance(d, int) for d in after[1:]):
        return False
    target = np.array([1, *after[1:]], np.int64)
    edit.set_constant(node, 1, target, f"{node.name}.shape")
    return True


def remove_noop(edit: GraphEditor, node: ir.Node) -> bool:
    """Remove Identity, Dropout, a Cast to the same type and a Transpose that keeps the order.

    Raises:
        UnsupportedError: A Dropout is in training mode.
    """
    value = node.inputs[0] if node.inputs else None
    if node.domain or value is None:
        return False
    if node.op_type == "Dropout":
        _check_dropout(node)
        return edit.bypass(node, value)
    if node.op_type == "Identity":
        return edit.bypass(node, value)
    if node.op_type == "Cast" and value.dtype is not None and int_of(node, "to", 0) == int(value.dtype):
        return edit.bypass(node, value)
    if node.op_type == "Transpose" and "perm" in node.attributes:
        order = list(node.attributes["perm"].as_ints())
        return order == sorted(order) and edit.bypass(node, value)
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
