"""Constants that multiply or add: one spelling, merged, and folded into the linear operator before them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir.editing import GraphEditor
from ...ir.errors import UnsupportedError
from ...ir.graph import LINEAR, constant_of, float_of, int_of, is_float, only_consumer, rank_of


def spell(edit: GraphEditor, node: ir.Node) -> bool:
    """``x - c`` is an Add, ``x / c`` a Mul, ``c - x`` a Mul by -1 and an Add; constants stand second."""
    if node.domain or node.op_type not in ("Add", "Sub", "Mul", "Div") or not is_float(node.outputs[0]):
        return False
    first, second = (constant_of(v) for v in node.inputs)
    x, y = node.inputs
    assert x is not None
    assert y is not None
    name = str(node.name)
    if node.op_type in ("Add", "Mul"):
        if first is None or second is not None:
            return False
        edit.substitute(node, node.op_type, [y, x])
        return True
    if second is not None:
        with np.errstate(all="ignore"):
            other = (
                -second if node.op_type == "Sub" else (1.0 / second.astype(np.float64)).astype(second.dtype)
            )
        if not np.isfinite(other).all():
            return False
        edit.set_constant(node, 1, other, f"{name}.constant")
        edit.substitute(node, "Add" if node.op_type == "Sub" else "Mul", [x, node.inputs[1]])
        return True
    if first is not None and node.op_type == "Sub":
        minus = edit.constant(f"{name}.minus_one", np.array(-1, first.dtype))
        edit.substitute(node, "Add", [edit.at(node).add("Mul", [y, minus], f"{name}/negate", like=y), x])
        return True
    return False


def split_batch_norm(edit: GraphEditor, node: ir.Node) -> bool:
    """BatchNormalization with constant statistics is a Mul and an Add.

    Raises:
        UnsupportedError: It is in training mode.
    """
    if node.op_type != "BatchNormalization" or node.domain:
        return False
    used = [o for o in node.outputs[1:] if o.uses() or o.is_graph_output()]
    if int_of(node, "training_mode", 0) or used:
        raise UnsupportedError(
            "a BatchNormalization is in training mode: it depends on the batch",
            node=node.name or "",
            op="BatchNormalization",
            found="training_mode is 1" if not used else f"its statistics {used[0].name!r} are used",
            allowed="inference mode",
            do="export the model in eval mode",
        )
    rank = rank_of(node.inputs[0])
    arrays = [constant_of(v) for v in node.inputs[1:5]]
    if rank is None or rank < 2 or any(a is None for a in arrays) or not is_float(node.outputs[0]):
        return False
    gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    scale = gamma / np.sqrt(variance + float_of(node, "epsilon", 1e-5))
    name, x = str(node.name), node.inputs[0]
    dtype = node.outputs[0].dtype
    assert dtype is not None
    along = (-1, *[1] * (rank - 2))
    factor = edit.constant(f"{name}.scale", scale.reshape(along).astype(dtype.numpy()))
    offset = edit.constant(f"{name}.shift", (beta - mean * scale).reshape(along).astype(dtype.numpy()))
    for extra in node.outputs[1:]:
        extra.name = None
    node.resize_outputs(1)
    product = edit.at(node).add("Mul", [x, factor], f"{name}/scale", like=node.outputs[0])
    edit.substitute(node, "Add", [product, offset])
    return True


def merge(edit: GraphEditor, node: ir.Node) -> bool:
    """Two Adds (or two Muls) of constants after each other are one."""
    if node.domain or node.op_type not in ("Add", "Mul") or not is_float(node.outputs[0]):
        return False
    outer = constant_of(node.inputs[1])
    value = node.inputs[0]
    before = value.producer() if value is not None else None
    if outer is None or before is None or before.op_type != node.op_type or before.domain:
        return False
    inner = constant_of(before.inputs[1])
    if (
        inner is None
        or only_consumer(before.outputs[0]) is not node
        or constant_of(before.inputs[0]) is not None
    ):
        return False
    exact = outer.astype(np.float64), inner.astype(np.float64)
    both = (exact[0] + exact[1] if node.op_type == "Add" else exact[0] * exact[1]).astype(outer.dtype)
    if both.size > max(outer.size, inner.size) or not np.isfinite(both).all():
        return False
    edit.set_constant(before, 1, both, f"{before.name}.constant")
    before.outputs[0].shape = node.outputs[0].shape
    return edit.bypass(node, before.outputs[0])


def fold(edit: GraphEditor, node: ir.Node) -> bool:
    """A Mul or Add by a constant per output channel goes into the weights of the operator before it."""
    if node.domain or node.op_type not in ("Add", "Mul") or not is_float(node.outputs[0]):
        return False
    c, value = constant_of(node.inputs[1]), node.inputs[0]
    before = value.producer() if value is not None else None
    if c is None or before is None or before.domain or only_consumer(before.outputs[0]) is not node:
        return False
    if before.op_type == "Add" and node.op_type == "Mul":
        return _swap_behind_matmul(edit, before, node)
    if before.op_type not in LINEAR:
        return False
    weight = constant_of(before.inputs[1])
    if weight is None or weight.ndim < 2:
        return False
    is_matmul = before.op_type == "MatMul"
    channels = int(weight.shape[-1] if is_matmul else weight.shape[0])
    rank = rank_of(before.outputs[0]) if is_matmul else weight.ndim
    vector = _per_channel(c, rank, channels, -1 if is_matmul else 1)
    bias = None if is_matmul else constant_of(before.inputs[2] if len(before.inputs) > 2 else None)
    if (
        vector is None
        or (bias is None and not is_matmul)
        or (is_matmul and (node.op_type == "Add" or weight.ndim > 2))
    ):
        return False
    along = vector if is_matmul else vector.reshape(-1, *[1] * (weight.ndim - 1))
    factor, shift = (along, 0.0) if node.op_type == "Mul" else (1.0, vector)
    new_weight = (weight * factor).astype(weight.dtype)
    new_bias = None
    if bias is not None:
        new_bias = (bias * (vector if node.op_type == "Mul" else 1.0) + shift).astype(bias.dtype)
    if not np.isfinite(new_weight).all() or (new_bias is not None and not np.isfinite(new_bias).all()):
        return False
    if not edit.bypass(node, before.outputs[0]):
        return False
    if node.op_type == "Mul":
        edit.set_constant(before, 1, new_weight, f"{before.name}.weight")
    if new_bias is not None:
        edit.set_constant(before, 2, new_bias, f"{before.name}.bias")
    return True


def _swap_behind_matmul(edit: GraphEditor, add: ir.Node, mul: ir.Node) -> bool:
    """``(x @ W + b) * c`` becomes ``x @ W * c + b * c``, so that the Mul reaches the MatMul."""
    product, b, c = add.inputs[0], constant_of(add.inputs[1]), constant_of(mul.inputs[1])
    matmul = product.producer() if product is not None else None
    if matmul is None or matmul.op_type != "MatMul" or matmul.domain or b is None or c is None:
        return False
    weight = constant_of(matmul.inputs[1])
    if weight is None or weight.ndim != 2 or only_consumer(matmul.outputs[0]) is not add:
        return False
    vector = _per_channel(c, rank_of(matmul.outputs[0]), int(weight.shape[-1]), -1)
    if vector is None or not _keeps_rank(b, rank_of(matmul.outputs[0])):
        return False
    shifted = (b * c.astype(np.float64)).astype(b.dtype)
    scaled = (weight * vector).astype(weight.dtype)
    if (
        not np.isfinite(shifted).all()
        or not np.isfinite(scaled).all()
        or not edit.bypass(mul, add.outputs[0])
    ):
        return False
    edit.set_constant(matmul, 1, scaled, f"{matmul.name}.weight")
    edit.set_constant(add, 1, shifted, f"{add.name}.constant")
    return True


def _keeps_rank(array: np.ndarray, rank: int | None) -> bool:
    return rank is not None and array.ndim <= rank


def _per_channel(c: np.ndarray, rank: int | None, channels: int, axis: int) -> np.ndarray | None:
    """``c`` as (channels) float64, when it has one value for each channel and does not widen the output."""
    if not _keeps_rank(c, rank):
        return None
    assert rank is not None
    shape = [1] * (rank - c.ndim) + list(c.shape)
    axis %= rank
    if any(size != 1 for i, size in enumerate(shape) if i != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(c.astype(np.float64).ravel(), (channels,))
