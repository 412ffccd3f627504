"""One spelling for what chooses or divides up elements: Split, maxima, Where, and what stands behind them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.graph import constant_of, int_of, variable_inputs
from ..analysis.elementwise import ElementwiseProbe
from .edit import constant, insert, is_float, rank_of, substitute

_GRID = np.concatenate([np.linspace(-50, 50, 2001), np.linspace(-2, 2, 2001)])
"""Where a function is tried that may stand in front of max-pooling as well as behind."""


def split_to_slices(model: ir.Model, node: ir.Node) -> bool:
    """A Split is one Slice for each output that is read."""
    data = node.inputs[0] if node.inputs else None
    if node.op_type != "Split" or node.domain or data is None or data.shape is None:
        return False
    axis = int_of(node, "axis", 0) % len(data.shape)
    sizes = [o.shape[axis] if o.shape is not None else None for o in node.outputs]
    if axis == 0 or not all(isinstance(s, int) for s in sizes):
        return False
    start = 0
    for number, (output, size) in enumerate(zip(list(node.outputs), sizes, strict=True)):
        assert isinstance(size, int)
        ends = [
            constant(model.graph, np.array([v], np.int64), f"{node.name}.{what}")
            for what, v in (("start", start), ("end", start + size), ("axis", axis))
        ]
        part = insert(node, "Slice", [data, *ends], f"{node.name}/{number}", like=output)
        name = output.name
        output.replace_all_uses_with(part, replace_graph_outputs=True)
        output.name, part.name = f"{name}_split", name
        start += size
    model.graph.remove(node, safe=True)
    return True


def global_max(model: ir.Model, node: ir.Node) -> bool:
    """GlobalMaxPool is a ReduceMax over the image."""
    rank = rank_of(node.inputs[0]) if node.inputs else None
    if node.op_type != "GlobalMaxPool" or node.domain or rank is None:
        return False
    axes = constant(model.graph, np.arange(2, rank, dtype=np.int64), f"{node.name}.axes")
    substitute(node, "ReduceMax", [node.inputs[0], axes], {"keepdims": 1})
    return True


def largest_of_many(model: ir.Model, node: ir.Node) -> bool:  # noqa: ARG001
    """Max and Min of more than two tensors are taken two by two, constants last."""
    if node.op_type not in ("Max", "Min") or node.domain or not is_float(node.outputs[0]):
        return False
    inputs = [v for v in node.inputs if v is not None]
    if len(inputs) == 1:
        substitute(node, "Identity", inputs)
        return True
    if len(inputs) == 2:
        return False
    values = sorted(inputs, key=lambda v: constant_of(v) is not None)
    for number in range(len(values) - 2):
        values[:2] = [insert(node, node.op_type, values[:2], f"{node.name}/{number}")]
    substitute(node, node.op_type, values)
    return True


def choose_by_sum(model: ir.Model, node: ir.Node) -> bool:
    """Where of three encrypted tensors is a sum of two of one choice each: tables have two inputs at most."""
    if (
        node.op_type != "Where"
        or node.domain
        or len(variable_inputs(node)) < 3
        or not is_float(node.outputs[0])
    ):
        return False
    condition, x, y = node.inputs
    dtype = node.outputs[0].dtype
    assert dtype is not None
    zero = constant(model.graph, np.zeros(1, dtype.numpy()), f"{node.name}.zero")
    first = insert(node, "Where", [condition, x, zero], f"{node.name}/yes", like=node.outputs[0])
    second = insert(node, "Where", [condition, zero, y], f"{node.name}/no", like=node.outputs[0])
    substitute(node, "Add", [first, second])
    return True


def whole_as_numbers(model: ir.Model, node: ir.Node) -> bool:  # noqa: ARG001
    """A condition or whole number that meets another tensor, or is the client's, is a float on its way.

    So it can be quantized, and be rounded to a whole number again behind that.
    """
    if node.domain or node.op_type == "Cast":
        return False
    several = len(variable_inputs(node)) > 1
    modified = False
    for index, value in enumerate(node.inputs):
        if value is None or constant_of(value) is not None or not _is_whole(value):
            continue
        source = value.producer()
        given = source.inputs[0] if source is not None and source.op_type == "Cast" else None
        if (given is not None and given.dtype is ir.DataType.FLOAT) or not (
            several or value.is_graph_input()
        ):
            continue
        back = _same_again(value) or _number_and_back(node, value, f"{node.name}/{index}")
        node.replace_input_with(index, back)
        modified = True
    return modified


def result_as_number(model: ir.Model, node: ir.Node) -> bool:  # noqa: ARG001
    """A condition or whole number that is returned is one again on the client: a float is decrypted."""
    result = node.outputs[0] if node.outputs else None
    if result is None or node.domain or node.op_type == "Cast" or len(node.outputs) != 1:
        return False
    if not result.is_graph_output() or not _is_whole(result) or not variable_inputs(node):
        return False
    graph, name = node.graph, str(result.name)
    assert isinstance(graph, ir.Graph)
    following = node
    for part, op, to in (
        ("number", "Cast", ir.DataType.FLOAT),
        ("rounded", "Round", None),
        ("whole", "Cast", result.dtype),
    ):
        if op == "Round" and result.dtype is ir.DataType.BOOL:
            continue
        attributes = {} if to is None else {"to": int(to)}
        made = ir.node(op, [following.outputs[0]], attributes, name=f"{node.name}/{part}")
        made.outputs[0].type = ir.TensorType(to or ir.DataType.FLOAT)
        made.outputs[0].shape, made.outputs[0].name = result.shape, f"{name}_{part}"
        graph.insert_after(following, made)
        following = made
    graph.outputs[list(graph.outputs).index(result)] = following.outputs[0]
    result.name, following.outputs[0].name = f"{name}_computed", name
    return True


def _is_whole(value: ir.Value) -> bool:
    return value.dtype is not None and (value.dtype is ir.DataType.BOOL or value.dtype.is_integer())


def _number_and_back(node: ir.Node, value: ir.Value, name: str) -> ir.Value:
    assert value.dtype is not None
    number = insert(node, "Cast", [value], f"{name}/number", {"to": int(ir.DataType.FLOAT)})
    number.dtype, number.shape = ir.DataType.FLOAT, value.shape
    if value.dtype is not ir.DataType.BOOL:  # a Cast to whole numbers cuts off
        number = insert(node, "Round", [number], f"{name}/rounded", like=number)
    back = insert(node, "Cast", [number], f"{name}/whole", {"to": int(value.dtype)})
    back.dtype, back.shape = value.dtype, value.shape
    return back


def _same_again(value: ir.Value) -> ir.Value | None:
    """The value that was made of a number made of this before, so that it is quantized once."""
    pending = [o for n in value.consumers() if n.op_type == "Cast" for o in n.outputs]
    while pending:
        number = pending.pop()
        if number.dtype is not ir.DataType.FLOAT:
            continue
        for reader in number.consumers():
            if reader.op_type == "Cast" and reader.outputs[0].dtype is value.dtype:
                return reader.outputs[0]
            pending += reader.outputs if reader.op_type == "Round" else []
    return None


def function_before_pool(model: ir.Model, node: ir.Node) -> bool:
    """A function that never falls goes in front of max-pooling: then one quantizer serves for both."""
    pool = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if pool is None or pool.domain or pool.op_type not in ("MaxPool", "ReduceMax"):
        return False
    source, pooled = pool.inputs[0], pool.outputs[0]
    alone = len(list(pooled.uses())) == 1 and not pooled.is_graph_output()
    scalars = all(c.size == 1 for v in node.inputs if (c := constant_of(v)) is not None)
    if source is None or not alone or not scalars or variable_inputs(node) != [pooled]:
        return False
    if not _rises(node, pooled, model.graph.opset_imports.get("", 21)):
        return False
    inputs = [source if v is pooled else v for v in node.inputs]
    attributes = {k: a.value for k, a in node.attributes.items()}
    moved = insert(pool, node.op_type, inputs, f"{node.name}", attributes, like=source)
    kept = {k: a.value for k, a in pool.attributes.items()}
    name = str(pool.name)
    replaced = substitute(node, pool.op_type, [moved, *pool.inputs[1:]], kept)
    model.graph.remove(pool, safe=True)
    replaced.name = name
    return True


def _rises(node: ir.Node, value: ir.Value, opset: int) -> bool:
    """Whether a function of one tensor never falls, as far as a fine grid shows."""
    if node.domain or len(node.outputs) != 1 or node.outputs[0].shape != value.shape:
        return False
    if not ElementwiseProbe(opset)(node, [value]):
        return False
    grid = np.unique(_GRID).astype(np.float32).reshape([-1] + [1] * (len(value.shape or ()) - 1))
    try:
        (found,) = runtime.run_nodes([node], {value: grid}, node.outputs, opset)
    except Exception:  # noqa: BLE001 - what cannot be tried stays where it is
        return False
    return found.dtype == np.float32 and bool(
        np.isfinite(found).all() and (np.diff(found.ravel()) >= 0).all()
    )


def log_softmax(model: ir.Model, node: ir.Node) -> bool:
    """LogSoftmax is the difference to the logarithm of a sum of exponentials.

    Nothing is taken off before the exponential: what is encrypted has a known range, and overflows nowhere.
    """
    rank = rank_of(node.inputs[0]) if node.inputs else None
    if node.op_type != "LogSoftmax" or node.domain or rank is None:
        return False
    x, name = node.inputs[0], str(node.name)
    axis = int_of(node, "axis", -1) % rank
    if axis == 0:
        return False
    axes = constant(model.graph, np.array([axis], np.int64), f"{name}.axis")
    powers = insert(node, "Exp", [x], f"{name}/powers", like=x)
    total = insert(node, "ReduceSum", [powers, axes], f"{name}/total", {"keepdims": 1})
    substitute(node, "Sub", [x, insert(node, "Log", [total], f"{name}/log")])
    return True


def one_hot(model: ir.Model, node: ir.Node) -> bool:
    """OneHot of an encrypted index is a comparison with every number that it can be."""
    if node.op_type != "OneHot" or node.domain or constant_of(node.inputs[0]) is not None:
        return False
    x, depth, values = node.inputs[0], constant_of(node.inputs[1]), constant_of(node.inputs[2])
    rank = rank_of(x)
    if x is None or depth is None or values is None or rank is None or values.dtype != np.float32:
        return False
    axis = int_of(node, "axis", -1) % (rank + 1)
    if axis == 0:
        return False
    name, count = str(node.name), int(depth.reshape(-1)[0])
    number = insert(node, "Cast", [x], f"{name}/number", {"to": int(ir.DataType.FLOAT)})
    axes = constant(model.graph, np.array([axis], np.int64), f"{name}.axis")
    column = insert(node, "Unsqueeze", [number, axes], f"{name}/column")
    shape = [count if i == axis else 1 for i in range(rank + 1)]
    spread = insert(
        node,
        "Expand",
        [column, constant(model.graph, np.array(shape, np.int64), f"{name}.shape")],
        f"{name}/spread",
    )
    # An index may count from the end.
    wrapped = insert(
        node,
        "Mod",
        [spread, constant(model.graph, np.array(count, np.float32), f"{name}.count")],
        f"{name}/wrapped",
        {"fmod": 1},
    )
    below = insert(
        node,
        "Less",
        [wrapped, constant(model.graph, np.array(0, np.float32), f"{name}.zero")],
        f"{name}/below",
    )
    whole = insert(
        node,
        "Where",
        [
            below,
            insert(
                node,
                "Add",
                [wrapped, constant(model.graph, np.array(count, np.float32), f"{name}.all")],
                f"{name}/moved",
            ),
            wrapped,
        ],
        f"{name}/index",
    )
    numbers = np.arange(count, dtype=np.float32).reshape(shape)
    same = insert(node, "Equal", [whole, constant(model.graph, numbers, f"{name}.numbers")], f"{name}/same")
    ends = [constant(model.graph, values[i : i + 1], f"{name}.{w}") for i, w in ((1, "on"), (0, "off"))]
    substitute(node, "Where", [same, *ends])
    return True


def embedding(model: ir.Model, node: ir.Node) -> bool:
    """Gather of constant rows by an encrypted index: a one-hot vector times the rows."""
    rows = constant_of(node.inputs[0]) if len(node.inputs) == 2 else None
    index = node.inputs[1] if len(node.inputs) == 2 else None
    if node.op_type != "Gather" or node.domain or rows is None or rows.ndim != 2 or rows.dtype != np.float32:
        return False
    if index is None or constant_of(index) is not None or int_of(node, "axis", 0) != 0:
        return False
    name = str(node.name)
    depth = constant(model.graph, np.array(len(rows), np.int64), f"{name}.depth")
    ends = constant(model.graph, np.array([0, 1], np.float32), f"{name}.ends")
    hot = insert(node, "OneHot", [index, depth, ends], f"{name}/one_hot", {"axis": -1})
    hot.dtype = ir.DataType.FLOAT
    if index.shape is not None:
        hot.shape = ir.Shape([*index.shape, len(rows)])
    substitute(node, "MatMul", [hot, node.inputs[0]])
    return True
