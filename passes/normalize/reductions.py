"""Normalizations, norms and sums, inside the encrypted part, in parts that circuits are made of.

Sums over axes are linear; squares, roots and logarithms work element by element; what is left is a product of
two encrypted tensors. The client's part keeps the operators as they are: there they cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.editing import GraphEditor
from ...ir.graph import constant_of, float_of, int_of, ints_of, is_float, rank_of, variable_inputs

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


class Parts:
    """Writes operators in front of a node.

    Args:
        edit: The editor of the model.
        node: The node.
        dtype: Of the numbers that operators get; the type of the node's result where it is None.
    """

    def __init__(self, edit: GraphEditor, node: ir.Node, dtype: np.dtype | None = None) -> None:
        self.edit, self.node, self.name = edit, node, str(node.name)
        kind = node.outputs[0].dtype
        assert kind is not None
        self.dtype = kind.numpy() if dtype is None else dtype

    def add(
        self, op: str, *inputs: ir.Value | None, part: str = "", **attributes: int | list[int]
    ) -> ir.Value:
        """The output of a new node."""
        return self.edit.at(self.node).add(op, list(inputs), f"{self.name}/{part or op.lower()}", attributes)

    def number(self, value: float) -> ir.Value:
        """A scalar."""
        return self.edit.constant(f"{self.name}.number", np.array(value, self.dtype))

    def array(self, value: np.ndarray) -> ir.Value:
        """A constant of the type of the numbers."""
        return self.edit.constant(f"{self.name}.constant", np.asarray(value, self.dtype))

    def indices(self, values: Sequence[int]) -> ir.Value:
        """A constant vector of whole numbers."""
        return self.edit.constant(f"{self.name}.axes", np.array(values, np.int64))

    def square(self, x: ir.Value | None, part: str = "squares") -> ir.Value:
        """``x * x``."""
        return self.add("Mul", x, x, part=part)

    def power(self, x: ir.Value | None, p: int) -> ir.Value:
        """``|x| ** p``."""
        if p == 2:
            return self.square(x)
        size = self.add("Abs", x)
        return size if p == 1 else self.add("Pow", size, self.number(p), part="powers")

    def root(self, total: ir.Value, p: int) -> ir.Value:
        """``total ** (1 / p)``."""
        if p <= 2:
            return self.add("Sqrt", total) if p == 2 else total
        return self.add("Pow", total, self.number(1 / p), part="root")

    def normalized(
        self, x: ir.Value | None, axes: Sequence[int], epsilon: float, center: bool
    ) -> tuple[ir.Value, ir.Value | None, ir.Value]:
        """``(x - mean) / sqrt(variance + epsilon)``, the mean, and what it is multiplied by."""
        where, mean = self.indices(axes), None
        if center:
            mean = self.add("ReduceMean", x, where, part="mean")
            x = self.add("Sub", x, mean, part="centered")
        variance = self.add("ReduceMean", self.square(x), where, part="variance")
        shifted = self.add("Add", variance, self.number(epsilon), part="shifted")
        factor = self.add("Reciprocal", self.add("Sqrt", shifted))
        return self.add("Mul", x, factor, part="normalized"), mean, factor


def normalization(edit: GraphEditor, node: ir.Node) -> bool:
    """LayerNormalization, RMSNormalization, Instance-, Group- and MeanVarianceNormalization."""
    rank, dims = rank_of(node.inputs[0]), shapes.dims_of(node.inputs[0])
    if rank is None or dims is None or not is_float(node.outputs[0]) or node.domain:
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
    parts, x, epsilon = Parts(edit, node), node.inputs[0], float_of(node, "epsilon", 1e-5)
    scale, bias = (constant_of(v) for v in [*node.inputs, None, None][1:3])
    along = (-1, *[1] * (rank - 2))
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        axes = list(range(int_of(node, "axis", -1) % rank, rank))
        value, mean, factor = parts.normalized(x, axes, epsilon, node.op_type == "LayerNormalization")
        for extra, found in zip(node.outputs[1:], (mean, factor), strict=False):
            if found is not None and (extra.uses() or extra.is_graph_output()):
                edit.stand_in(extra, found)
    elif node.op_type == "MeanVarianceNormalization":
        value = parts.normalized(x, ints_of(node, "axes") or [0, 2, 3], 1e-9, True)[0]
    elif node.op_type == "InstanceNormalization":
        value = parts.normalized(x, list(range(2, rank)), epsilon, True)[0]
        scale, bias = (None if a is None else a.reshape(along) for a in (scale, bias))
    else:
        sample = shapes.static_of_sample(x)
        if sample is None:
            return False
        groups = int_of(node, "num_groups", 1)
        split = parts.add("Reshape", x, parts.indices([-1, groups, int(np.prod(sample)) // groups]))
        flat = parts.normalized(split, [2], epsilon, True)[0]
        value = parts.add("Reshape", flat, parts.indices([-1, *sample]), part="joined")
        scale, bias = (None if a is None else a.reshape(along) for a in (scale, bias))
    for extra in node.outputs[1:]:
        extra.name = None
    node.resize_outputs(1)
    one = np.ones(1, parts.dtype)
    product = parts.add("Mul", value, parts.array(one if scale is None else scale), part="scaled")
    edit.substitute(node, "Add", [product, parts.array(0 * one if bias is None else bias)])
    return True


def norm(edit: GraphEditor, node: ir.Node) -> bool:
    """ReduceL1, ReduceL2 and their kin, LpNormalization, LpPool and GlobalLpPool."""
    if node.domain or not is_float(node.outputs[0]):
        return False
    rank, parts, x = rank_of(node.inputs[0]), None, node.inputs[0]
    if rank is None:
        return False
    if node.op_type in _REDUCTIONS:
        parts = Parts(edit, node)
        before, after = _REDUCTIONS[node.op_type]
        inner = parts.square(x) if before == "square" else parts.add(before, x) if before else x
        attributes = {
            k: a.value for k, a in node.attributes.items() if k in ("keepdims", "noop_with_empty_axes")
        }
        inputs = [inner, *node.inputs[1:]]
        if after is None:
            edit.substitute(node, "ReduceSum", inputs, attributes)
        else:
            total = edit.at(node).add("ReduceSum", inputs, f"{parts.name}/sum", attributes)
            edit.substitute(node, after, [total])
        return True
    p = int_of(node, "p", 2)
    if p < 1:
        return False
    if node.op_type == "LpNormalization":
        parts = Parts(edit, node)
        where = parts.indices([int_of(node, "axis", -1)])
        total = parts.add("ReduceSum", parts.power(x, p), where, part="sum")
        edit.substitute(node, "Mul", [x, parts.add("Reciprocal", parts.root(total, p))])
        return True
    if node.op_type == "GlobalLpPool":
        parts = Parts(edit, node)
        where = parts.indices(range(2, rank))
        total = parts.add("ReduceSum", parts.power(x, p), where, part="sum", keepdims=1)
        edit.substitute(node, "Identity", [parts.root(total, p)])
        return True
    return node.op_type == "LpPool" and _lp_pool(edit, node, p)


def _lp_pool(edit: GraphEditor, node: ir.Node, p: int) -> bool:
    """LpPool is the root of a sum of powers: an average times the size of the window."""
    kernel, x = ints_of(node, "kernel_shape"), node.inputs[0]
    kept = {k: a.value for k, a in node.attributes.items() if k not in ("p", "ceil_mode")}
    if not kernel:
        return False
    if int_of(node, "ceil_mode", 0):
        before, after = shapes.static_of_sample(x), shapes.static_of_sample(node.outputs[0])
        if before is None or after is None or kept.get("auto_pad", "NOTSET") != "NOTSET":
            return False
        rank = len(kernel)
        strides, dilations = (ints_of(node, k) or [1] * rank for k in ("strides", "dilations"))
        pads = ints_of(node, "pads") or [0] * 2 * rank
        for i in range(rank):  # windows that hang over the end see zeros
            reach = (after[1 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1
            pads[rank + i] = max(pads[rank + i], reach - before[1 + i] - pads[i])
        kept["pads"] = pads
    parts = Parts(edit, node)
    attributes = kept | {"count_include_pad": 1}
    mean = edit.at(node).add("AveragePool", [parts.power(x, p)], f"{parts.name}/mean", attributes)
    total = parts.add("Mul", mean, parts.number(float(np.prod(kernel))), part="sum")
    edit.substitute(node, "Identity", [parts.root(total, p)])
    return True


def softmax(edit: GraphEditor, node: ir.Node) -> bool:
    """Softmax over few elements: ``1 / sum over j of exp(x_j - x_i)``, all differences by one linear layer.

    Of two elements that is a sigmoid of their difference. For more it takes a table for each pair, but no
    product and no quotient, and nothing overflows: where a difference is large, the quotient is 0 as it is.
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
    parts, x = Parts(edit, node), node.inputs[0]
    order = [i for i in range(rank) if i != axis] + [axis]
    moved = [sample[i - 1] for i in order[1:]]
    if axis != rank - 1:
        x = edit.at(node).add("Transpose", [x], f"{parts.name}/last", {"perm": order})
    if size == 2:
        difference = parts.add(
            "MatMul", x, parts.array(np.array([[1.0, -1.0], [-1.0, 1.0]])), part="difference"
        )
        order_back = [int(i) for i in np.argsort(order)]
        edit.substitute(node, "Transpose", [parts.add("Sigmoid", difference)], {"perm": order_back})
        return True
    eye = np.eye(size)
    pairs = (eye[:, None, :] - eye[:, :, None]).reshape(size, -1)  # column (i, j) is x_j - x_i
    differences = parts.add("MatMul", x, parts.array(pairs), part="differences")
    split = parts.add(
        "Reshape", parts.add("Exp", differences), parts.indices([-1, *moved, size]), part="pairs"
    )
    total = parts.add("ReduceSum", split, parts.indices([-1]), part="sum", keepdims=0)
    if axis == rank - 1:
        edit.substitute(node, "Reciprocal", [total])
    else:
        share = parts.add("Reciprocal", total)
        edit.substitute(node, "Transpose", [share], {"perm": [int(i) for i in np.argsort(order)]})
    return True


def local_response(edit: GraphEditor, node: ir.Node) -> bool:
    """LRN: ``x * (bias + alpha * mean of the squares of neighbouring channels) ** -beta``."""
    sample = shapes.static_of_sample(node.inputs[0])
    if node.op_type != "LRN" or node.domain or sample is None or not is_float(node.outputs[0]):
        return False
    parts, x, size = Parts(edit, node), node.inputs[0], int_of(node, "size", 1)
    before = (size - 1) // 2
    flat = parts.indices([-1, 1, sample[0], int(np.prod(sample[1:]))])
    image = parts.add("Reshape", parts.square(x), flat, part="image")
    window = {"kernel_shape": [size, 1], "pads": [before, 0, size - 1 - before, 0], "count_include_pad": 1}
    mean = edit.at(node).add("AveragePool", [image], f"{parts.name}/mean", window)
    mean = parts.add("Reshape", mean, parts.indices([-1, *sample]), part="channels")
    scaled = parts.add("Mul", mean, parts.number(float_of(node, "alpha", 1e-4)), part="scaled")
    shifted = parts.add("Add", scaled, parts.number(float_of(node, "bias", 1.0)), part="shifted")
    factor = parts.add("Pow", shifted, parts.number(-float_of(node, "beta", 0.75)), part="factor")
    edit.substitute(node, "Mul", [x, factor])
    return True


def division(edit: GraphEditor, node: ir.Node) -> bool:
    """A quotient of two encrypted tensors is a product with a reciprocal, which is a table."""
    if node.op_type != "Div" or node.domain or not is_float(node.outputs[0]):
        return False
    if len(variable_inputs(node)) < 2:
        return False
    parts = Parts(edit, node)
    edit.substitute(node, "Mul", [node.inputs[0], parts.add("Reciprocal", node.inputs[1])])
    return True


def sum_of_many(edit: GraphEditor, node: ir.Node) -> bool:
    """Sum and Mean of several tensors are additions (everywhere: they are linear)."""
    if node.op_type not in ("Sum", "Mean") or node.domain or not is_float(node.outputs[0]):
        return False
    inputs = [v for v in node.inputs if v is not None]
    parts = Parts(edit, node)
    total = inputs[0]
    for number, value in enumerate(inputs[1:-1]):
        total = parts.add("Add", total, value, part=f"sum_{number}")
    if node.op_type == "Sum":
        if len(inputs) == 1:
            edit.substitute(node, "Identity", [total])
        else:
            edit.substitute(node, "Add", [total, inputs[-1]])
        return True
    if len(inputs) > 1:
        total = parts.add("Add", total, inputs[-1], part="sum")
    edit.substitute(node, "Mul", [total, parts.number(1.0 / len(inputs))])
    return True
