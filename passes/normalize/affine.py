"""Constants that multiply or add: one spelling, merged, and folded into the linear operator before them.

onnxscript has rules that fold BatchNormalization into Conv and Gemm. They do not give what these give: they
calculate in float32, drop the node's name, leave shared weights and MatMul alone, and fold nothing but
BatchNormalization. So it is spelled as a Mul and an Add here, and those are folded like any others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir.errors import UnsupportedError
from ...ir.graph import LINEAR, constant_of, float_of, int_of, is_float, only_consumer, rank_of
from ..framework.rewriting import Refusal
from .rule import NOT_CONSTANT, NOT_FLOAT, Rule, is_onnx

NOT_FINITE = Refusal("a constant would not be finite")
NOT_ALONE = Refusal("no operator that it could go into is read by it alone")


@dataclass(frozen=True)
class Spelling:
    """How an addition or product is written.

    Attributes:
        node: The node.
        operator: Add or Mul.
        constant: The constant that stands second then; None where the operands change places.
        negate: Whether the second operand is negated, and the first one, a constant, added.
    """

    node: ir.Node
    operator: str
    constant: np.ndarray | None = None
    negate: bool = False


class SpellConstants(Rule[Spelling]):
    """``x - c`` is an Add, ``x / c`` a Mul, ``c - x`` a Mul by -1 and an Add; constants stand second."""

    name: ClassVar[str] = "spell-constants"

    def match(self, node: ir.Node) -> Spelling | Refusal | None:
        """The spelling, where it is another."""
        if not is_onnx(node, "Add", "Sub", "Mul", "Div"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        first, second = (constant_of(v) for v in node.inputs)
        if node.op_type in ("Add", "Mul"):
            return None if first is None or second is not None else Spelling(node, node.op_type)
        operator = "Add" if node.op_type == "Sub" else "Mul"
        if second is not None:
            with np.errstate(all="ignore"):
                inverse = (1.0 / second.astype(np.float64)).astype(second.dtype)
            other = -second if operator == "Add" else inverse
            return Spelling(node, operator, other) if np.isfinite(other).all() else NOT_FINITE
        if first is not None and operator == "Add":
            return Spelling(node, operator, np.array(-1, first.dtype), negate=True)
        return None

    def apply(self, match: Spelling) -> None:
        """Write it so."""
        node, name, constant = match.node, str(match.node.name), match.constant
        x, y = node.inputs
        if constant is None:
            self.edit.substitute(node, match.operator, [y, x])
        elif match.negate:
            minus = self.edit.constant(f"{name}.minus_one", constant)
            negated = self.edit.at(node).add("Mul", [y, minus], f"{name}/negate", like=y)
            self.edit.substitute(node, "Add", [negated, x])
        else:
            self.edit.set_constant(node, 1, constant, f"{name}.constant")
            self.edit.substitute(node, match.operator, [x, node.inputs[1]])


@dataclass(frozen=True)
class Statistics:
    """What a BatchNormalization multiplies by and adds, along the channels."""

    node: ir.Node
    scale: np.ndarray
    shift: np.ndarray


class SplitBatchNormalization(Rule[Statistics]):
    """BatchNormalization with constant statistics is a Mul and an Add.

    Raises:
        UnsupportedError: It is in training mode.
    """

    name: ClassVar[str] = "split-batch-normalization"

    def match(self, node: ir.Node) -> Statistics | Refusal | None:
        """The factor and the addend."""
        if not is_onnx(node, "BatchNormalization"):
            return None
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
        if any(a is None for a in arrays):
            return Refusal("its statistics are not constant")
        if rank is None or rank < 2 or not is_float(node.outputs[0]):
            return NOT_FLOAT
        gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
        scale = gamma / np.sqrt(variance + float_of(node, "epsilon", 1e-5))
        dtype, along = node.outputs[0].dtype, (-1, *[1] * (rank - 2))
        assert dtype is not None
        shift = beta - mean * scale
        return Statistics(node, *(a.reshape(along).astype(dtype.numpy()) for a in (scale, shift)))

    def apply(self, match: Statistics) -> None:
        """Write both operators."""
        node, name = match.node, str(match.node.name)
        factor = self.edit.constant(f"{name}.scale", match.scale)
        offset = self.edit.constant(f"{name}.shift", match.shift)
        for extra in node.outputs[1:]:
            extra.name = None
        node.resize_outputs(1)
        inputs = [node.inputs[0], factor]
        product = self.edit.at(node).add("Mul", inputs, f"{name}/scale", like=node.outputs[0])
        self.edit.substitute(node, "Add", [product, offset])


@dataclass(frozen=True)
class Merged:
    """Two operators with a constant, the one behind the other, and the constant of both together."""

    inner: ir.Node
    outer: ir.Node
    constant: np.ndarray


class MergeConstants(Rule[Merged]):
    """Two Adds (or two Muls) of constants after each other are one."""

    name: ClassVar[str] = "merge-constants"

    def match(self, node: ir.Node) -> Merged | Refusal | None:
        """Both, with the constant of both."""
        if not is_onnx(node, "Add", "Mul") or not is_float(node.outputs[0]):
            return None
        outer, value = constant_of(node.inputs[1]), node.inputs[0]
        before = value.producer() if value is not None else None
        if outer is None or before is None or not is_onnx(before, node.op_type):
            return None
        inner = constant_of(before.inputs[1])
        if inner is None or constant_of(before.inputs[0]) is not None:
            return NOT_CONSTANT
        if only_consumer(before.outputs[0]) is not node:
            return NOT_ALONE
        exact = outer.astype(np.float64), inner.astype(np.float64)
        both = (exact[0] + exact[1] if node.op_type == "Add" else exact[0] * exact[1]).astype(outer.dtype)
        if both.size > max(outer.size, inner.size):
            return Refusal("the constant of both would be larger than either")
        return Merged(before, node, both) if np.isfinite(both).all() else NOT_FINITE

    def apply(self, match: Merged) -> None:
        """Let the first do what both do."""
        inner = match.inner
        self.edit.set_constant(inner, 1, match.constant, f"{inner.name}.constant")
        inner.outputs[0].shape = match.outer.outputs[0].shape
        self.edit.bypass(match.outer, inner.outputs[0])


@dataclass(frozen=True)
class Folded:
    """New constants of a linear operator, and of an Add behind it, that make ``node`` superfluous.

    Attributes:
        node: What goes.
        before: What makes the value that it reads.
        constants: By node and number of its input: the array, and a name where the input has none.
    """

    node: ir.Node
    before: ir.Node
    constants: tuple[tuple[ir.Node, int, np.ndarray, str], ...]


class FoldConstants(Rule[Folded]):
    """A Mul or Add by a constant per output channel goes into the weights of the operator before it."""

    name: ClassVar[str] = "fold-constants"

    def match(self, node: ir.Node) -> Folded | Refusal | None:
        """The new weights."""
        if not is_onnx(node, "Add", "Mul") or not is_float(node.outputs[0]):
            return None
        c, value = constant_of(node.inputs[1]), node.inputs[0]
        before = value.producer() if value is not None else None
        if c is None or before is None or before.domain:
            return None
        if only_consumer(before.outputs[0]) is not node:
            return NOT_ALONE
        if before.op_type == "Add" and node.op_type == "Mul":
            return _swapped_behind_matmul(before, node)
        if before.op_type not in LINEAR:
            return NOT_ALONE
        weight = constant_of(before.inputs[1])
        if weight is None or weight.ndim < 2:
            return NOT_CONSTANT
        if before.op_type == "MatMul":
            return _into_matmul(before, weight, node, c)
        bias = constant_of(before.inputs[2] if len(before.inputs) > 2 else None)
        vector = _per_channel(c, weight.ndim, int(weight.shape[0]), 1)
        if vector is None:
            return Refusal("the constant is not one number for each channel")
        if bias is None:
            return Refusal("the operator has no constant bias")
        factor, shift = (vector, 0.0) if node.op_type == "Mul" else (1.0, vector)
        new_bias = (bias * factor + shift).astype(bias.dtype)
        along = vector.reshape(-1, *[1] * (weight.ndim - 1)) if node.op_type == "Mul" else 1.0
        new_weight = (weight * along).astype(weight.dtype)
        if not np.isfinite(new_weight).all() or not np.isfinite(new_bias).all():
            return NOT_FINITE
        made = [(before, 2, new_bias, f"{before.name}.bias")]
        if node.op_type == "Mul":
            made.insert(0, (before, 1, new_weight, f"{before.name}.weight"))
        return Folded(node, before, tuple(made))

    def apply(self, match: Folded) -> None:
        """Write them, and take the node out."""
        self.edit.bypass(match.node, match.before.outputs[0])
        for node, index, array, name in match.constants:
            self.edit.set_constant(node, index, array, name)


def _into_matmul(matmul: ir.Node, weight: np.ndarray, mul: ir.Node, c: np.ndarray) -> Folded | Refusal:
    vector = _per_channel(c, rank_of(matmul.outputs[0]), int(weight.shape[-1]), -1)
    if vector is None or mul.op_type == "Add" or weight.ndim > 2:
        return Refusal("a MatMul takes in nothing but a factor for each column")
    scaled = (weight * vector).astype(weight.dtype)
    if not np.isfinite(scaled).all():
        return NOT_FINITE
    return Folded(mul, matmul, ((matmul, 1, scaled, f"{matmul.name}.weight"),))


def _swapped_behind_matmul(add: ir.Node, mul: ir.Node) -> Folded | Refusal:
    """``(x @ W + b) * c`` becomes ``x @ W * c + b * c``, so that the Mul reaches the MatMul."""
    product, b, c = add.inputs[0], constant_of(add.inputs[1]), constant_of(mul.inputs[1])
    matmul = product.producer() if product is not None else None
    if matmul is None or not is_onnx(matmul, "MatMul") or b is None or c is None:
        return Refusal("no MatMul with a bias stands before it")
    weight = constant_of(matmul.inputs[1])
    if weight is None or weight.ndim != 2:
        return NOT_CONSTANT
    if only_consumer(matmul.outputs[0]) is not add:
        return NOT_ALONE
    vector = _per_channel(c, rank_of(matmul.outputs[0]), int(weight.shape[-1]), -1)
    if vector is None or not _keeps_rank(b, rank_of(matmul.outputs[0])):
        return Refusal("the constant is not one number for each channel")
    shifted = (b * c.astype(np.float64)).astype(b.dtype)
    scaled = (weight * vector).astype(weight.dtype)
    if not np.isfinite(shifted).all() or not np.isfinite(scaled).all():
        return NOT_FINITE
    weights = matmul, 1, scaled, f"{matmul.name}.weight"
    return Folded(mul, add, (weights, (add, 1, shifted, f"{add.name}.constant")))


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
