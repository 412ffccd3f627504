"""Products with a constant, on either side and of any rank, as MatMul with a constant matrix on the right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.graph import constant_of, is_float, rank_of
from ..framework.rewriting import Refusal
from .rule import NOT_FLOAT, NOT_STATIC, Rule, is_onnx

NOT_ONE_CONSTANT = Refusal("not exactly one operand is constant")


@dataclass(frozen=True)
class Flat:
    """A product with a constant that is a vector, or not the right operand of rank 2.

    Attributes:
        node: The MatMul.
        x: The other operand.
        matrix: The constant as the right operand.
        vector: Whether it is a vector, so that the result has an axis less.
        left: The rank of ``x`` where the constant is on the left, else None.
    """

    node: ir.Node
    x: ir.Value | None
    matrix: np.ndarray
    vector: bool
    left: int | None


class FlatMatrix(Rule[Flat]):
    """A constant of MatMul that is a vector, or has leading axes of 1, is a matrix; so is one on the left.

    ``A @ x`` is the transpose of ``x' @ A'``, with the last two axes transposed.
    """

    name: ClassVar[str] = "flat-matrix"

    def match(self, node: ir.Node) -> Flat | Refusal | None:
        """The matrix."""
        if not is_onnx(node, "MatMul"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        left, right = (constant_of(v) for v in node.inputs)
        if (left is None) == (right is None):
            return NOT_ONE_CONSTANT
        x = node.inputs[1] if right is None else node.inputs[0]
        array = left if right is None else right
        rank = rank_of(x)
        if array is None or rank is None or rank_of(node.outputs[0]) is None:
            return NOT_STATIC
        if rank < 2:
            return Refusal("the other operand is a vector")
        matrix = array.reshape(array.shape[-2:]) if math.prod(array.shape[:-2]) == 1 else array
        if matrix.ndim > 2 or (array.ndim > rank and array.ndim > 2):
            return Refusal("the constant has several matrices, or more axes than the other operand")
        if right is not None:
            if array.ndim == 2:
                return None
            return Flat(node, x, matrix[:, None] if array.ndim == 1 else matrix, array.ndim == 1, None)
        return Flat(node, x, matrix[:, None] if array.ndim == 1 else matrix.T, array.ndim == 1, rank)

    def apply(self, match: Flat) -> None:
        """Write the product with the matrix on the right."""
        node, x, name, edit = match.node, match.x, str(match.node.name), self.edit.at(match.node)
        if match.left is not None:
            x = edit.add("Transpose", [x], f"{name}/transposed", {"perm": _swapped(match.left)})
        weight = edit.constant(f"{name}.weight", np.ascontiguousarray(match.matrix))
        if match.vector:
            product = edit.add("MatMul", [x, weight], f"{name}/product")
            edit.substitute(node, "Squeeze", [product, edit.constant(f"{name}.axes", np.array([-1]))])
        elif match.left is not None:
            product = edit.add("MatMul", [x, weight], f"{name}/product")
            edit.substitute(node, "Transpose", [product], {"perm": _swapped(match.left)})
        else:
            edit.substitute(node, "MatMul", [x, weight])


def _swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


@dataclass(frozen=True)
class Groups:
    """A product with one constant matrix for each place of the leading axes.

    Attributes:
        node: The MatMul.
        x: The other operand.
        rank: Its rank.
        sizes: Its leading axes, without the batch.
        weight: (groups, out, in).
        places: How many vectors each matrix meets.
        left: Whether the constant is on the left.
    """

    node: ir.Node
    x: ir.Value | None
    rank: int
    sizes: tuple[int, ...]
    weight: np.ndarray
    places: int
    left: bool


class MatmulByGroups(Rule[Groups]):
    """A constant with a matrix for each place of the leading axes is a convolution with groups.

    ``x`` (N, b, i, k) times (b, k, m) is, with k as channels of group b, a convolution with a kernel of 1.
    """

    name: ClassVar[str] = "matmul-by-groups"

    def match(self, node: ir.Node) -> Groups | Refusal | None:
        """The matrices."""
        if not is_onnx(node, "MatMul"):
            return None
        if not is_float(node.outputs[0]):
            return NOT_FLOAT
        left, right = (constant_of(v) for v in node.inputs)
        x, array = (node.inputs[1], left) if right is None else (node.inputs[0], right)
        dims = shapes.dims_of(x)
        if array is None or array.ndim < 3:
            return None
        if dims is None or not all(isinstance(d, int) for d in dims[1:]):
            return NOT_STATIC
        if len(dims) < 4 or array.ndim > len(dims):
            return Refusal("the other operand has no leading axes besides the batch")
        sizes = tuple(int(str(d)) for d in dims[1:-2])
        rows, columns = (int(str(d)) for d in dims[-2:])
        given = array.shape[:-2]
        if len(given) > len(sizes) and given[0] != 1:
            return Refusal("the constant differs from sample to sample")
        given = given[-len(sizes) :]
        if any(g not in (1, s) for g, s in zip(reversed(given), reversed(sizes), strict=False)):
            return Refusal("the constant has other leading axes than the other operand")
        whole = (*sizes, *array.shape[-2:])
        matrices = np.broadcast_to(array.reshape(*given, *array.shape[-2:]), whole)
        matrices = matrices.reshape(-1, *array.shape[-2:])
        # On the left: x (N, b, k, j); on the right x (N, b, i, k) is transposed to that first.
        if right is None:
            return Groups(node, x, len(dims), sizes, matrices, columns, left=True)
        return Groups(node, x, len(dims), sizes, matrices.transpose(0, 2, 1), rows, left=False)

    def apply(self, match: Groups) -> None:
        """Write the convolution."""
        node, value, weight, name = match.node, match.x, match.weight, str(match.node.name)
        groups, out, channels = weight.shape
        edit, turn = self.edit.at(node), {"perm": _swapped(match.rank)}
        if not match.left:
            value = edit.add("Transpose", [value], f"{name}/transposed", turn)
        shape = edit.constant(f"{name}.channels", np.array([-1, groups * channels, match.places, 1]))
        value = edit.add("Reshape", [value, shape], f"{name}/channels")
        kernel = np.ascontiguousarray(weight.reshape(groups * out, channels, 1, 1))
        inputs = [value, edit.constant(f"{name}.weight", kernel)]
        window = {"group": groups, "kernel_shape": [1, 1]}
        value = edit.add("Conv", inputs, f"{name}/groups", window)
        shape = edit.constant(f"{name}.shape", np.array([-1, *match.sizes, out, match.places]))
        if match.left:
            edit.substitute(node, "Reshape", [value, shape])
        else:
            value = edit.add("Reshape", [value, shape], f"{name}/matrices")
            edit.substitute(node, "Transpose", [value], turn)


@dataclass(frozen=True)
class Contraction:
    """An Einsum of one tensor with a constant.

    Attributes:
        node: The Einsum.
        x: The tensor.
        ordered: The order of its axes in which those that are summed come last.
        rows: The sizes of those that stay; -1 for the batch.
        matrix: The constant.
        made: The sizes of the axes that it brings.
        perm: The order of the result's axes.
    """

    node: ir.Node
    x: ir.Value | None
    ordered: list[int]
    rows: list[int]
    matrix: np.ndarray
    made: list[int]
    perm: list[int]


class EinsumToMatmul(Rule[Contraction]):
    """An Einsum of one tensor with a constant, without a common axis that stays, is a MatMul."""

    name: ClassVar[str] = "einsum-to-matmul"

    def match(self, node: ir.Node) -> Contraction | Refusal | None:
        """The matrix and the orders of axes."""
        attribute = node.attributes.get("equation")
        if not is_onnx(node, "Einsum") or attribute is None:
            return None
        arrays = [constant_of(v) for v in node.inputs]
        if len(arrays) != 2 or sum(a is None for a in arrays) != 1:
            return NOT_ONE_CONSTANT
        side = 0 if arrays[0] is None else 1
        x, array = node.inputs[side], arrays[1 - side]
        parsed, dims = _labels(attribute.as_string()), shapes.dims_of(x)
        if dims is None or array is None:
            return NOT_STATIC
        if parsed is None:
            return Refusal("axes repeat within an operand, or are not named")
        (of_x, of_w), out = (parsed[0][side], parsed[0][1 - side]), parsed[1]
        if len(of_x) != len(dims) or len(of_w) != array.ndim or not of_x or of_x[0] not in out:
            return Refusal("the equation does not keep the batch, or names other axes than there are")
        if set(of_x) & set(of_w) & set(out) or set(of_x) - set(of_w) - set(out):
            return Refusal("a common axis stays, or one of the tensor alone is summed")
        kept, summed = [c for c in of_x if c in out], [c for c in of_x if c not in out]
        new = [c for c in of_w if c in out]
        size = dict(zip(of_x, dims, strict=True))
        if not all(isinstance(size[c], int) for c in [*kept[1:], *summed]):
            return NOT_STATIC
        number = {c: i for i, c in enumerate(of_w)}
        matrix = np.einsum(array, list(number.values()), [number[c] for c in [*summed, *new]])
        matrix = matrix.reshape(math.prod(matrix.shape[: len(summed)]), -1)
        return Contraction(
            node,
            x,
            [of_x.index(c) for c in [*kept, *summed]],
            [-1, *(int(str(size[c])) for c in kept[1:])],
            matrix.astype(array.dtype),
            [array.shape[of_w.index(c)] for c in new],
            [[*kept, *new].index(c) for c in out],
        )

    def apply(self, match: Contraction) -> None:
        """Write the product, between what orders axes."""
        node, matrix, name, edit = match.node, match.matrix, str(match.node.name), self.edit.at(match.node)
        value = edit.add("Transpose", [match.x], f"{name}/ordered", {"perm": match.ordered})
        into = edit.constant(f"{name}.rows", np.array([*match.rows, matrix.shape[0]]))
        value = edit.add("Reshape", [value, into], f"{name}/rows")
        weight = edit.constant(f"{name}.weight", matrix)
        value = edit.add("MatMul", [value, weight], f"{name}/product")
        shape = edit.constant(f"{name}.shape", np.array([*match.rows, *match.made]))
        value = edit.add("Reshape", [value, shape], f"{name}/axes")
        edit.substitute(node, "Transpose", [value], {"perm": match.perm})


def _labels(equation: str) -> tuple[list[str], str] | None:
    """The axes of both operands and of the result; None where axes repeat within one, or are not named."""
    text = equation.replace(" ", "")
    if "." in text or text.count(",") != 1:
        return None
    left, arrow, out = text.partition("->")
    operands = left.split(",")
    if not arrow:
        letters = "".join(operands)
        out = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if any(len(set(o)) < len(o) for o in [*operands, out]):
        return None
    return operands, out
