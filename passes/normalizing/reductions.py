"""Normalizations, norms and sums, inside the encrypted part, in parts that circuits are made of.

Sums over axes are linear; squares, roots and logarithms work element by element; what is left is a product of
two encrypted tensors. The client's part keeps the operators as they are: there they cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...ir.graph import constant_of, int_of, variable_inputs
from . import shapes
from .edit import constant, float_of, insert, ints_of, is_float, rank_of, substitute

_REDUCTIONS: dict[str, tuple[str | None, str | None]] = {
    "ReduceL1": ("Abs", None),
    "ReduceL2": ("square", "Sqrt"),
    "ReduceSumSquare": ("square", None),
    "ReduceLogSum": (None, "Log"),
    "ReduceLogSumExp": ("Exp", "Log"),
}
"""What is done to each element before the sum, and to the sum."""


MOST_IN_SOFTMAX = 16
"""Most elements of a Softmax inside the encrypted part: it takes a table for every pair of them."""


class _Parts:
    """Writes operators in front of ``node``."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.graph, self.node, self.name = model.graph, node, str(node.name)
        dtype = node.outputs[0].dtype
        assert dtype is not None
        self.dtype = dtype.numpy()

    def add(self, op: str, *inputs: ir.Value | None, part: str = "", **attributes: int) -> ir.Value:
        return insert(self.node, op, list(inputs), f"{self.name}/{part or op.lower()}", attributes)

    def number(self, value: float) -> ir.Value:
        return constant(self.graph, np.array(value, self.dtype), f"{self.name}.number")

    def array(self, value: np.ndarray) -> ir.Value:
        return constant(self.graph, np.asarray(value, self.dtype), f"{self.name}.constant")

    def indices(self, values: Sequence[int]) -> ir.Value:
        return constant(self.graph, np.array(values, np.int64), f"{self.name}.axes")

    def square(self, x: ir.Value | None, part: str = "squares") -> ir.Value:
        return self.add("Mul", x, x, part=part)

    def normalized(self, x: ir.Value | None, axes: Sequence[int], epsilon: float, center: bool) -> ir.Value:
        """``(x - mean) / sqrt(variance + epsilon)``."""
        where = self.indices(axes)
        if center:
            x = self.add("Sub", x, self.add("ReduceMean", x, where, part="mean"), part="centered")
        variance = self.add("ReduceMean", self.square(x), where, part="variance")
        shifted = self.add("Add", variance, self.number(epsilon), part="shifted")
        return self.add("Mul", x, self.add("Reciprocal", self.add("Sqrt", shifted)), part="normalized")


def normalization(model: ir.Model, node: ir.Node) -> bool:
    """LayerNormalization, RMSNormalization, Instance-, Group- and MeanVarianceNormalization."""
    rank, dims = rank_of(node.inputs[0]), shapes.dims_of(node.inputs[0])
    outputs = [o for o in node.outputs[1:] if o.uses() or o.is_graph_output()]
    if rank is None or dims is None or outputs or not is_float(node.outputs[0]) or node.domain:
        return False
    if node.op_type not in (
        "LayerNormalization",
        "RMSNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "MeanVarianceNormalization",
    ):
        return False
    if any(v is not None and constant_of(v) is None for v in node.inputs[1:]):
        return False
    for extra in node.outputs[1:]:
        extra.name = None
    node.resize_outputs(1)
    parts, x, epsilon = _Parts(model, node), node.inputs[0], float_of(node, "epsilon", 1e-5)
    scale, bias = (constant_of(v) for v in [*node.inputs, None, None][1:3])
    along = (-1, *[1] * (rank - 2))
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        axes = list(range(int_of(node, "axis", -1) % rank, rank))
        value = parts.normalized(x, axes, epsilon, node.op_type == "LayerNormalization")
    elif node.op_type == "MeanVarianceNormalization":
        value = parts.normalized(x, ints_of(node, "axes") or [0, 2, 3], 1e-9, True)
    elif node.op_type == "InstanceNormalization":
        value = parts.normalized(x, list(range(2, rank)), epsilon, True)
        scale, bias = (None if a is None else a.reshape(along) for a in (scale, bias))
    else:
        sample = shapes.static_of_sample(x)
        if sample is None:
            return False
        groups = int_of(node, "num_groups", 1)
        split = parts.add("Reshape", x, parts.indices([-1, groups, int(np.prod(sample)) // groups]))
        flat = parts.normalized(split, [2], epsilon, True)
        value = parts.add("Reshape", flat, parts.indices([-1, *sample]), part="joined")
        scale, bias = (None if a is None else a.reshape(along) for a in (scale, bias))
    one = np.ones(1, parts.dtype)
    product = parts.add("Mul", value, parts.array(one if scale is None else scale), part="scaled")
    substitute(node, "Add", [product, parts.array(0 * one if bias is None else bias)])
    return True


def norm(model: ir.Model, node: ir.Node) -> bool:
    """ReduceL1, ReduceL2 and their kin, LpNormalization, LpPool and GlobalLpPool."""
    if node.domain or not is_float(node.outputs[0]):
        return False
    rank, parts, x = rank_of(node.inputs[0]), None, node.inputs[0]
    if rank is None:
        return False
    if node.op_type in _REDUCTIONS:
        parts = _Parts(model, node)
        before, after = _REDUCTIONS[node.op_type]
        inner = parts.square(x) if before == "square" else parts.add(before, x) if before else x
        attributes = {
            k: a.value for k, a in node.attributes.items() if k in ("keepdims", "noop_with_empty_axes")
        }
        inputs = [inner, *node.inputs[1:]]
        if after is None:
            substitute(node, "ReduceSum", inputs, attributes)
        else:
            total = insert(node, "ReduceSum", inputs, f"{parts.name}/sum", attributes)
            substitute(node, after, [total])
        return True
    p = int_of(node, "p", 2)
    if node.op_type == "LpNormalization" and p in (1, 2):
        parts = _Parts(model, node)
        inner = parts.square(x) if p == 2 else parts.add("Abs", x)
        total = parts.add("ReduceSum", inner, parts.indices([int_of(node, "axis", -1)]), part="sum")
        root = parts.add("Sqrt", total) if p == 2 else total
        substitute(node, "Mul", [x, parts.add("Reciprocal", root)])
        return True
    if node.op_type == "GlobalLpPool" and p in (1, 2):
        parts = _Parts(model, node)
        substitute(node, f"ReduceL{p}", [x, parts.indices(range(2, rank))], {"keepdims": 1})
        return True
    kernel = ints_of(node, "kernel_shape")
    if node.op_type == "LpPool" and kernel and p in (1, 2) and not int_of(node, "ceil_mode", 0):
        parts = _Parts(model, node)
        inner = parts.square(x) if p == 2 else parts.add("Abs", x)
        kept = {k: a.value for k, a in node.attributes.items() if k != "p"} | {"count_include_pad": 1}
        mean = insert(node, "AveragePool", [inner], f"{parts.name}/mean", kept)
        total = parts.add("Mul", mean, parts.number(float(np.prod(kernel))), part="sum")
        substitute(node, "Sqrt" if p == 2 else "Identity", [total])
        return True
    return False


def softmax(model: ir.Model, node: ir.Node) -> bool:
    """Softmax over few elements: ``1 / sum over j of exp(x_j - x_i)``, all differences by one linear layer.

    That takes a table for each pair, but no product and no quotient of encrypted numbers, and nothing in it
    overflows: where a difference is large, the quotient is 0 as it should be.
    """
    rank, sample = rank_of(node.inputs[0]), shapes.static_of_sample(node.inputs[0])
    if (
        node.op_type != "Softmax"
        or node.domain
        or rank is None
        or sample is None
        or not is_float(node.outputs[0])
    ):
        return False
    axis = int_of(node, "axis", -1) % rank
    if axis == 0 or not 1 < (size := sample[axis - 1]) <= MOST_IN_SOFTMAX:
        return False
    parts, x = _Parts(model, node), node.inputs[0]
    order = [i for i in range(rank) if i != axis] + [axis]
    moved = [sample[i - 1] for i in order[1:]]
    if axis != rank - 1:
        x = insert(node, "Transpose", [x], f"{parts.name}/last", {"perm": order})
    eye = np.eye(size)
    pairs = (eye[:, None, :] - eye[:, :, None]).reshape(size, -1)  # column (i, j) is x_j - x_i
    differences = parts.add("MatMul", x, parts.array(pairs), part="differences")
    split = parts.add(
        "Reshape", parts.add("Exp", differences), parts.indices([-1, *moved, size]), part="pairs"
    )
    total = parts.add("ReduceSum", split, parts.indices([-1]), part="sum", keepdims=0)
    if axis == rank - 1:
        substitute(node, "Reciprocal", [total])
    else:
        share = parts.add("Reciprocal", total)
        substitute(node, "Transpose", [share], {"perm": [int(i) for i in np.argsort(order)]})
    return True


def local_response(model: ir.Model, node: ir.Node) -> bool:
    """LRN: ``x * (bias + alpha * mean of the squares of neighbouring channels) ** -beta``."""
    sample = shapes.static_of_sample(node.inputs[0])
    if node.op_type != "LRN" or node.domain or sample is None or not is_float(node.outputs[0]):
        return False
    parts, x, size = _Parts(model, node), node.inputs[0], int_of(node, "size", 1)
    before = (size - 1) // 2
    flat = parts.indices([-1, 1, sample[0], int(np.prod(sample[1:]))])
    image = parts.add("Reshape", parts.square(x), flat, part="image")
    window = {"kernel_shape": [size, 1], "pads": [before, 0, size - 1 - before, 0], "count_include_pad": 1}
    mean = insert(node, "AveragePool", [image], f"{parts.name}/mean", window)
    mean = parts.add("Reshape", mean, parts.indices([-1, *sample]), part="channels")
    scaled = parts.add("Mul", mean, parts.number(float_of(node, "alpha", 1e-4)), part="scaled")
    shifted = parts.add("Add", scaled, parts.number(float_of(node, "bias", 1.0)), part="shifted")
    factor = parts.add("Pow", shifted, parts.number(-float_of(node, "beta", 0.75)), part="factor")
    substitute(node, "Mul", [x, factor])
    return True


def division(model: ir.Model, node: ir.Node) -> bool:
    """A quotient of two encrypted tensors is a product with a reciprocal, which is a table."""
    if node.op_type != "Div" or node.domain or not is_float(node.outputs[0]):
        return False
    if len(variable_inputs(node)) < 2:
        return False
    parts = _Parts(model, node)
    substitute(node, "Mul", [node.inputs[0], parts.add("Reciprocal", node.inputs[1])])
    return True


def sum_of_many(model: ir.Model, node: ir.Node) -> bool:
    """Sum and Mean of several tensors are additions (everywhere: they are linear)."""
    if node.op_type not in ("Sum", "Mean") or node.domain or not is_float(node.outputs[0]):
        return False
    inputs = [v for v in node.inputs if v is not None]
    parts = _Parts(model, node)
    total = inputs[0]
    for number, value in enumerate(inputs[1:-1]):
        total = parts.add("Add", total, value, part=f"sum_{number}")
    if node.op_type == "Sum":
        if len(inputs) == 1:
            substitute(node, "Identity", [total])
        else:
            substitute(node, "Add", [total, inputs[-1]])
        return True
    if len(inputs) > 1:
        total = parts.add("Add", total, inputs[-1], part="sum")
    substitute(node, "Mul", [total, parts.number(1.0 / len(inputs))])
    return True
