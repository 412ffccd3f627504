"""Products with a constant, on either side and of any rank, as MatMul with a constant matrix on the right."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.editing import GraphEditor
from ...ir.graph import constant_of, is_float, rank_of


def flat_matrix(edit: GraphEditor, node: ir.Node) -> bool:
    """A constant of MatMul that is a vector, or has leading axes of 1, is a matrix; so is one on the left.

    ``A @ x`` is the transpose of ``x' @ A'``, with the last two axes transposed.
    """
    if node.op_type != "MatMul" or node.domain or not is_float(node.outputs[0]):
        return False
    left, right = (constant_of(v) for v in node.inputs)
    if (left is None) == (right is None):
        return False
    x = node.inputs[1] if right is None else node.inputs[0]
    array = left if right is None else right
    rank, out = rank_of(x), rank_of(node.outputs[0])
    if array is None or rank is None or out is None or rank < 2:
        return False
    matrix = array.reshape(array.shape[-2:]) if math.prod(array.shape[:-2]) == 1 else array
    if matrix.ndim > 2 or (array.ndim > rank and array.ndim > 2):
        return False
    if right is not None and array.ndim == 2:
        return False
    name = str(node.name)
    vector = array.ndim == 1
    if right is None:
        matrix = matrix[:, None] if vector else matrix.T
        x = edit.at(node).add("Transpose", [x], f"{name}/transposed", {"perm": _swapped(rank)})
    elif vector:
        matrix = matrix[:, None]
    weight = edit.constant(f"{name}.weight", np.ascontiguousarray(matrix))
    if vector:
        product = edit.at(node).add("MatMul", [x, weight], f"{name}/product")
        edit.substitute(node, "Squeeze", [product, edit.constant(f"{name}.axes", np.array([-1]))])
    elif right is None:
        product = edit.at(node).add("MatMul", [x, weight], f"{name}/product")
        edit.substitute(node, "Transpose", [product], {"perm": _swapped(rank)})
    else:
        edit.substitute(node, "MatMul", [x, weight])
    return True


def _swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def matmul_by_groups(edit: GraphEditor, node: ir.Node) -> bool:
    """A constant with a matrix for each place of the leading axes is a convolution with groups.

    ``x`` (N, b, i, k) times (b, k, m) is, with k as channels of group b, a convolution with a kernel of 1.
    """
    if node.op_type != "MatMul" or node.domain or not is_float(node.outputs[0]):
        return False
    left, right = (constant_of(v) for v in node.inputs)
    x, array = (node.inputs[1], left) if right is None else (node.inputs[0], right)
    dims = shapes.dims_of(x)
    if array is None or array.ndim < 3 or dims is None or len(dims) < 4 or array.ndim > len(dims):
        return False
    lead, (rows, columns) = dims[1:-2], dims[-2:]
    if not all(isinstance(d, int) for d in (*lead, rows, columns)):
        return False
    sizes = tuple(int(str(d)) for d in lead)
    given = array.shape[:-2]
    if len(given) > len(sizes) and given[0] != 1:
        return False
    given = given[-len(sizes) :]
    if any(g not in (1, s) for g, s in zip(reversed(given), reversed(sizes), strict=False)):
        return False
    matrices = np.broadcast_to(array.reshape(*given, *array.shape[-2:]), (*sizes, *array.shape[-2:])).reshape(
        -1, *array.shape[-2:]
    )
    name, groups = str(node.name), math.prod(sizes)
    rows, columns = int(str(rows)), int(str(columns))
    # On the left: x (N, b, k, j); on the right x (N, b, i, k) is transposed to that first.
    if right is None:
        channels, places, value = rows, columns, x
        weight = matrices
    else:
        channels, places = columns, rows
        value = edit.at(node).add("Transpose", [x], f"{name}/transposed", {"perm": _swapped(len(dims))})
        weight = matrices.transpose(0, 2, 1)
    out = weight.shape[1]
    shape = edit.constant(f"{name}.channels", np.array([-1, groups * channels, places, 1]))
    value = edit.at(node).add("Reshape", [value, shape], f"{name}/channels")
    kernel = np.ascontiguousarray(weight.reshape(groups * out, channels, 1, 1))
    value = edit.at(node).add(
        "Conv",
        [value, edit.constant(f"{name}.weight", kernel)],
        f"{name}/groups",
        {"group": groups, "kernel_shape": [1, 1]},
    )
    shape = edit.constant(f"{name}.shape", np.array([-1, *sizes, out, places]))
    if right is None:
        edit.substitute(node, "Reshape", [value, shape])
    else:
        value = edit.at(node).add("Reshape", [value, shape], f"{name}/matrices")
        edit.substitute(node, "Transpose", [value], {"perm": _swapped(len(dims))})
    return True


def einsum(edit: GraphEditor, node: ir.Node) -> bool:
    """An Einsum of one tensor with a constant, without a common axis that stays, is a MatMul."""
    attribute = node.attributes.get("equation")
    if node.op_type != "Einsum" or node.domain or attribute is None or len(node.inputs) != 2:
        return False
    arrays = [constant_of(v) for v in node.inputs]
    if sum(a is None for a in arrays) != 1:
        return False
    side = 0 if arrays[0] is None else 1
    x, array = node.inputs[side], arrays[1 - side]
    parsed = _labels(attribute.as_string())
    dims = shapes.dims_of(x)
    if parsed is None or dims is None or array is None:
        return False
    (of_x, of_w), out = (parsed[0][side], parsed[0][1 - side]), parsed[1]
    if len(of_x) != len(dims) or len(of_w) != array.ndim or not of_x or of_x[0] not in out:
        return False
    if set(of_x) & set(of_w) & set(out) or set(of_x) - set(of_w) - set(out):
        return False
    kept, summed = [c for c in of_x if c in out], [c for c in of_x if c not in out]
    new = [c for c in of_w if c in out]
    size = dict(zip(of_x, dims, strict=True))
    if not all(isinstance(size[c], int) for c in [*kept[1:], *summed]):
        return False
    name = str(node.name)
    number = {c: i for i, c in enumerate(of_w)}
    matrix = np.einsum(array, list(number.values()), [number[c] for c in [*summed, *new]])
    made = [array.shape[of_w.index(c)] for c in new]
    matrix = matrix.reshape(math.prod(matrix.shape[: len(summed)]), -1)
    rows = [-1, *(int(str(size[c])) for c in kept[1:])]
    value = edit.at(node).add(
        "Transpose", [x], f"{name}/ordered", {"perm": [of_x.index(c) for c in [*kept, *summed]]}
    )
    into = edit.constant(f"{name}.rows", np.array([*rows, matrix.shape[0]]))
    value = edit.at(node).add("Reshape", [value, into], f"{name}/rows")
    weight = edit.constant(f"{name}.weight", matrix.astype(array.dtype))
    value = edit.at(node).add("MatMul", [value, weight], f"{name}/product")
    value = edit.at(node).add(
        "Reshape", [value, edit.constant(f"{name}.shape", np.array([*rows, *made]))], f"{name}/axes"
    )
    edit.substitute(node, "Transpose", [value], {"perm": [[*kept, *new].index(c) for c in out]})
    return True


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
