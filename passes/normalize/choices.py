"""One spelling for what chooses or divides up elements: Split, maxima, Where, and what stands behind them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.batch.axes import BROADCASTING
from ...analysis.regions.elementwise import ElementwiseProbe
from ...ir import runtime, shapes
from ...ir.editing import GraphEditor
from ...ir.graph import MAXIMA, constant_of, int_of, is_float, rank_of, variable_inputs

MOST_MAXIMUM_ELEMENTS = 2**16
"""Elements of a tensor past which nobody would take a maximum of one."""
_GRID = np.concatenate([np.linspace(-50, 50, 2001), np.linspace(-2, 2, 2001)])
"""Where a function is tried that may stand in front of max-pooling as well as behind."""


def spread(edit: GraphEditor, node: ir.Node) -> bool:
    """A tensor that a larger constant meets is spread first: tables keep shapes."""
    variable, result = variable_inputs(node), node.outputs[0] if node.outputs else None
    if node.op_type not in BROADCASTING or node.domain or len(variable) != 1 or result is None:
        return False
    value = variable[0]
    before, after = shapes.dims_of(value), shapes.dims_of(result)
    if before is None or after is None or before == after or len(before) != len(after):
        return False
    if before[0] != after[0] or not all(isinstance(d, int) for d in after[1:]):
        return False
    target = edit.constant(f"{node.name}.shape", np.array([1, *after[1:]], np.int64))
    wide = edit.at(node).add("Expand", [value, target], f"{node.name}/spread")
    wide.type, wide.shape = value.type, result.shape
    for index, given in enumerate(node.inputs):
        if given is value:
            node.replace_input_with(index, wide)
    return True


def split_to_slices(edit: GraphEditor, node: ir.Node) -> bool:
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
            edit.constant(f"{node.name}.{what}", np.array([v], np.int64))
            for what, v in (("start", start), ("end", start + size), ("axis", axis))
        ]
        part = edit.at(node).add("Slice", [data, *ends], f"{node.name}/{number}", like=output)
        name = output.name
        output.replace_all_uses_with(part, replace_graph_outputs=True)
        output.name, part.name = f"{name}_split", name
        start += size
    edit.graph.remove(node, safe=True)
    return True


def global_max(edit: GraphEditor, node: ir.Node) -> bool:
    """GlobalMaxPool is a ReduceMax over the image."""
    rank = rank_of(node.inputs[0]) if node.inputs else None
    if node.op_type != "GlobalMaxPool" or node.domain or rank is None:
        return False
    axes = edit.constant(f"{node.name}.axes", np.arange(2, rank, dtype=np.int64))
    edit.substitute(node, "ReduceMax", [node.inputs[0], axes], {"keepdims": 1})
    return True


def largest_of_one(edit: GraphEditor, node: ir.Node) -> bool:
    """Max-pooling of windows of one element each, and a maximum along axes of size 1, choose nothing."""
    value = node.inputs[0] if node.inputs else None
    if node.op_type not in MAXIMA - {"Max", "Min"} or node.domain or not is_float(node.outputs[0]):
        return False
    dims = shapes.dims_of(value)
    if dims is None or dims != shapes.dims_of(node.outputs[0]):
        return False
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return False
    # Two samples: the largest over the samples of a batch is a sample's own only where it is alone.
    shape = (2, *(d for d in dims[1:] if isinstance(d, int)))
    if value is None or len(shape) != len(dims) or np.prod(shape) > MOST_MAXIMUM_ELEMENTS:
        return False
    # All different, and the other way round: any other element shows in one of the two. Padding never wins.
    rising = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    opset = edit.graph.opset_imports.get("", 21)
    for given in (rising, -rising):
        if not np.array_equal(runtime.run_nodes([node], {value: given}, [node.outputs[0]], opset)[0], given):
            return False
    edit.substitute(node, "Identity", [value])
    return True


def largest_of_many(edit: GraphEditor, node: ir.Node) -> bool:
    """Max and Min of more than two tensors are taken two by two, constants last."""
    if node.op_type not in ("Max", "Min") or node.domain or not is_float(node.outputs[0]):
        return False
    inputs = [v for v in node.inputs if v is not None]
    if len(inputs) == 1:
        edit.substitute(node, "Identity", inputs)
        return True
    if len(inputs) == 2:
        return False
    values = sorted(inputs, key=lambda v: constant_of(v) is not None)
    for number in range(len(values) - 2):
        values[:2] = [edit.at(node).add(node.op_type, values[:2], f"{node.name}/{number}")]
    edit.substitute(node, node.op_type, values)
    return True


def choose_by_sum(edit: GraphEditor, node: ir.Node) -> bool:
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
    zero = edit.constant(f"{node.name}.zero", np.zeros(1, dtype.numpy()))
    first = edit.at(node).add("Where", [condition, x, zero], f"{node.name}/yes", like=node.outputs[0])
    second = edit.at(node).add("Where", [condition, zero, y], f"{node.name}/no", like=node.outputs[0])
    edit.substitute(node, "Add", [first, second])
    return True


def function_before_pool(edit: GraphEditor, node: ir.Node) -> bool:
    """A function that never falls goes in front of max-pooling: then one quantizer serves for both."""
    pool = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if pool is None or pool.domain or pool.op_type not in ("MaxPool", "ReduceMax"):
        return False
    source, pooled = pool.inputs[0], pool.outputs[0]
    alone = len(list(pooled.uses())) == 1 and not pooled.is_graph_output()
    scalars = all(c.size == 1 for v in node.inputs if (c := constant_of(v)) is not None)
    if source is None or not alone or not scalars or variable_inputs(node) != [pooled]:
        return False
    if not _rises(node, pooled, edit.graph.opset_imports.get("", 21)):
        return False
    inputs = [source if v is pooled else v for v in node.inputs]
    attributes = {k: a.value for k, a in node.attributes.items()}
    moved = edit.at(pool).add(node.op_type, inputs, f"{node.name}", attributes, like=source)
    kept = {k: a.value for k, a in pool.attributes.items()}
    name = str(pool.name)
    replaced = edit.substitute(node, pool.op_type, [moved, *pool.inputs[1:]], kept)
    edit.graph.remove(pool, safe=True)
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


def log_softmax(edit: GraphEditor, node: ir.Node) -> bool:
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
    axes = edit.constant(f"{name}.axis", np.array([axis], np.int64))
    powers = edit.at(node).add("Exp", [x], f"{name}/powers", like=x)
    total = edit.at(node).add("ReduceSum", [powers, axes], f"{name}/total", {"keepdims": 1})
    edit.substitute(node, "Sub", [x, edit.at(node).add("Log", [total], f"{name}/log")])
    return True


def one_hot(edit: GraphEditor, node: ir.Node) -> bool:
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
    number = edit.at(node).add("Cast", [x], f"{name}/number", {"to": int(ir.DataType.FLOAT)})
    axes = edit.constant(f"{name}.axis", np.array([axis], np.int64))
    column = edit.at(node).add("Unsqueeze", [number, axes], f"{name}/column")
    shape = [count if i == axis else 1 for i in range(rank + 1)]
    spread = edit.at(node).add(
        "Expand", [column, edit.constant(f"{name}.shape", np.array(shape, np.int64))], f"{name}/spread"
    )
    # An index may count from the end.
    wrapped = edit.at(node).add(
        "Mod",
        [spread, edit.constant(f"{name}.count", np.array(count, np.float32))],
        f"{name}/wrapped",
        {"fmod": 1},
    )
    below = edit.at(node).add(
        "Less", [wrapped, edit.constant(f"{name}.zero", np.array(0, np.float32))], f"{name}/below"
    )
    whole = edit.at(node).add(
        "Where",
        [
            below,
            edit.at(node).add(
                "Add", [wrapped, edit.constant(f"{name}.all", np.array(count, np.float32))], f"{name}/moved"
            ),
            wrapped,
        ],
        f"{name}/index",
    )
    numbers = np.arange(count, dtype=np.float32).reshape(shape)
    same = edit.at(node).add("Equal", [whole, edit.constant(f"{name}.numbers", numbers)], f"{name}/same")
    ends = [edit.constant(f"{name}.{w}", values[i : i + 1]) for i, w in ((1, "on"), (0, "off"))]
    edit.substitute(node, "Where", [same, *ends])
    return True


def embedding(edit: GraphEditor, node: ir.Node) -> bool:
    """Gather of constant rows by an encrypted index: a one-hot vector times the rows; of numbers: a table."""
    rows = constant_of(node.inputs[0]) if len(node.inputs) == 2 else None
    index = node.inputs[1] if len(node.inputs) == 2 else None
    if node.op_type != "Gather" or node.domain or rows is None or rows.dtype != np.float32:
        return False
    if index is None or constant_of(index) is not None or int_of(node, "axis", 0) != 0:
        return False
    if rows.ndim == 1:
        return _within(edit, node, index, len(rows))
    if rows.ndim != 2:
        return False
    name = str(node.name)
    depth = edit.constant(f"{name}.depth", np.array(len(rows), np.int64))
    ends = edit.constant(f"{name}.ends", np.array([0, 1], np.float32))
    hot = edit.at(node).add("OneHot", [index, depth, ends], f"{name}/one_hot", {"axis": -1})
    hot.dtype = ir.DataType.FLOAT
    if index.shape is not None:
        hot.shape = ir.Shape([*index.shape, len(rows)])
    edit.substitute(node, "MatMul", [hot, node.inputs[0]])
    return True


def _within(edit: GraphEditor, node: ir.Node, index: ir.Value, count: int) -> bool:
    """Keep an index inside the rows that there are: tables have entries for a margin, too."""
    before = index.producer()
    if index.dtype is None or (before is not None and before.op_type == "Clip"):
        return False
    ends = [
        edit.constant(f"{node.name}.{what}", np.array(v, index.dtype.numpy()))
        for what, v in (("first", -count), ("last", count - 1))
    ]
    node.replace_input_with(1, edit.at(node).add("Clip", [index, *ends], f"{node.name}/within", like=index))
    return True
