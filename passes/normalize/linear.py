"""Gemm, MatMul and Conv in their one form."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.editing import GraphEditor, set_attributes
from ...ir.graph import constant_of, float_of, int_of, ints_of, is_float, only_consumer, rank_of

_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
_WINDOWS = frozenset({"Conv", "AveragePool", "MaxPool"})


def normalize_gemm(edit: GraphEditor, node: ir.Node) -> bool:
    """``Gemm(x, W, b)``: alpha and beta 1, transA 0, transB 1, W (out, in) and b (out) constant."""
    if node.op_type != "Gemm" or node.domain or not is_float(node.outputs[0]):
        return False
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None
    assert w is not None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    weight = constant_of(w)
    if weight is None:
        return _as_matmul(edit, node, x, w, bias)
    alpha, beta = float_of(node, "alpha", 1.0), float_of(node, "beta", 1.0)
    out = weight.shape[0 if int_of(node, "transB", 0) else 1]
    vector = _bias_vector(bias, out)
    if bias is not None and vector is None:
        return _split_bias(edit, node, bias, beta, np.zeros(out, weight.dtype))
    modified = False
    if int_of(node, "transA", 0):
        node.replace_input_with(
            0, edit.at(node).add("Transpose", [x], f"{node.name}/transpose", {"perm": [1, 0]})
        )
        modified = True
    if alpha != 1.0 or not int_of(node, "transB", 0):
        matrix = weight if int_of(node, "transB", 0) else weight.T
        scaled = (matrix.astype(np.float64) * alpha).astype(weight.dtype)
        edit.set_constant(node, 1, scaled, f"{node.name}.weight")
        modified = True
    if vector is None or beta != 1.0 or rank_of(bias) != 1 or vector.size != out:
        given = np.zeros(1) if vector is None else vector.astype(np.float64) * beta
        filled = np.broadcast_to(given, (out,)).astype(weight.dtype)
        edit.set_constant(node, 2, filled, f"{node.name}.bias")
        modified = True
    return set_attributes(node, _GEMM) or modified


def _bias_vector(bias: ir.Value | None, out: int) -> np.ndarray | None:
    array = constant_of(bias)
    if array is None or not (array.size == 1 or (array.size == out and array.shape[-1] == out)):
        return None
    return array.reshape(-1)


def _split_bias(edit: GraphEditor, node: ir.Node, bias: ir.Value, beta: float, zeros: np.ndarray) -> bool:
    """A bias that is computed, or differs from row to row, is an Add of its own."""
    name = str(node.name)
    if beta != 1.0:
        factor = edit.constant(f"{name}.beta", np.array(beta, zeros.dtype))
        bias = edit.at(node).add("Mul", [bias, factor], f"{name}/beta", like=bias)
    inputs = [*node.inputs[:2], edit.constant(f"{name}.bias", zeros)]
    attributes = {k: a.value for k, a in node.attributes.items()} | {"beta": 1.0}
    product = edit.at(node).add("Gemm", inputs, name, attributes, like=node.outputs[0])
    producer = product.producer()
    assert producer is not None
    producer.name, node.name = name, str(producer.name)
    edit.substitute(node, "Add", [product, bias])
    return True


def _as_matmul(edit: GraphEditor, node: ir.Node, x: ir.Value, w: ir.Value, bias: ir.Value | None) -> bool:
    """A product of two computed matrices is no dense layer: MatMul says so."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    name, dtype = str(node.name), node.outputs[0].dtype
    assert dtype is not None
    if int_of(node, "transA", 0):
        x = edit.at(node).add("Transpose", [x], f"{name}/transposeA", {"perm": [1, 0]})
    if int_of(node, "transB", 0):
        w = edit.at(node).add("Transpose", [w], f"{name}/transposeB", {"perm": [1, 0]})
    for value in (x, w):
        value.dtype = value.dtype or dtype
    steps = [("MatMul", w)]
    alpha, beta = float_of(node, "alpha", 1.0), float_of(node, "beta", 1.0)
    if alpha != 1.0:
        steps.append(("Mul", edit.constant(f"{name}.alpha", np.array(alpha, dtype.numpy()))))
    if bias is not None:
        if beta != 1.0:
            factor = edit.constant(f"{name}.beta", np.array(beta, dtype.numpy()))
            bias = edit.at(node).add("Mul", [bias, factor], f"{name}/beta", like=bias)
        steps.append(("Add", bias))
    value = x
    for op, operand in steps[:-1]:
        value = edit.at(node).add(op, [value, operand], f"{name}/{op}", like=node.outputs[0])
    edit.substitute(node, steps[-1][0], [value, steps[-1][1]])
    return True


def matmul_to_gemm(edit: GraphEditor, node: ir.Node) -> bool:
    """A MatMul of a matrix with a constant matrix on the right becomes a Gemm."""
    if node.op_type != "MatMul" or node.domain or not is_float(node.outputs[0]):
        return False
    weight = constant_of(node.inputs[1])
    if weight is None or weight.ndim != 2 or rank_of(node.inputs[0]) != 2:
        return False
    edit.set_constant(node, 1, weight.T, f"{node.name}.weight")
    bias = edit.constant(f"{node.name}.bias", np.zeros(weight.shape[1], weight.dtype))
    edit.substitute(node, "Gemm", [node.inputs[0], node.inputs[1], bias], _GEMM)
    return True


def normalize_window(edit: GraphEditor, node: ir.Node) -> bool:
    """Conv and pooling with every attribute written out, ``auto_pad`` resolved; a Conv also has a bias.

    A shape that is not known leaves the operator as it is.
    """
    if node.op_type not in _WINDOWS or node.domain:
        return False
    is_conv = node.op_type == "Conv"
    weight = node.inputs[1] if is_conv else None
    shape = shapes.static_of(weight)
    kernel = shape[2:] if shape is not None else ints_of(node, "kernel_shape")
    if kernel is None:
        return False
    strides = ints_of(node, "strides") or [1] * len(kernel)
    dilations = ints_of(node, "dilations") or [1] * len(kernel)
    pads = _pads(node, kernel, strides, dilations)
    if pads is None:
        return False
    written: dict[str, int | float | list[int]] = {
        "dilations": dilations,
        "kernel_shape": kernel,
        "pads": pads,
        "strides": strides,
    }
    if is_conv:
        written["group"] = int_of(node, "group", 1)
    others = {k: a.value for k, a in node.attributes.items() if k not in written and k != "auto_pad"}
    modified = set_attributes(node, dict(sorted((others | written).items())))
    if is_conv and shape is not None and (len(node.inputs) < 3 or node.inputs[2] is None):
        array = constant_of(weight)
        if array is not None and is_float(weight):
            edit.set_constant(node, 2, np.zeros(shape[0], array.dtype), f"{node.name}.bias")
            modified = True
    return modified


def _pads(node: ir.Node, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int] | None:
    attribute = node.attributes.get("auto_pad")
    mode = attribute.as_string() if attribute is not None else "NOTSET"
    if mode == "NOTSET":
        return ints_of(node, "pads") or [0] * (2 * len(kernel))
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    sizes = (shapes.dims_of(node.inputs[0]) or [])[2:]
    if len(sizes) != len(kernel) or not all(isinstance(s, int) for s in sizes):
        return None
    begin, end = [], []
    for size, k, stride, dilation in zip(map(int, sizes), kernel, strides, dilations, strict=True):  # type: ignore[arg-type]
        total = max((math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small = total // 2
        begin.append(small if mode == "SAME_UPPER" else total - small)
        end.append(total - small if mode == "SAME_UPPER" else small)
    return begin + end


def fold_pad(edit: GraphEditor, node: ir.Node) -> bool:
    """A Pad with zeros goes into the Conv behind it."""
    if node.op_type != "Pad" or node.domain:
        return False
    conv = only_consumer(node.outputs[0])
    if conv is None or conv.op_type != "Conv" or conv.domain or conv.inputs[0] is not node.outputs[0]:
        return False
    added = _zero_padding(node)
    pads = ints_of(conv, "pads")
    if added is None or pads is None or "auto_pad" in conv.attributes or len(added) != len(pads):
        return False
    value = node.inputs[0]
    assert value is not None
    written = {k: a.value for k, a in conv.attributes.items()}
    set_attributes(conv, written | {"pads": [a + p for a, p in zip(added, pads, strict=True)]})
    conv.replace_input_with(0, value)
    edit.graph.remove(node, safe=True)
    return True


def _zero_padding(node: ir.Node) -> list[int] | None:
    """The padding of the spatial axes (begins, then ends), when that is all that the node does."""
    attribute = node.attributes.get("mode")
    rank = rank_of(node.inputs[0])
    amounts = constant_of(node.inputs[1])
    inputs = [*node.inputs, None, None][2:4]
    filler, axes = constant_of(inputs[0]), constant_of(inputs[1])
    if (attribute is not None and attribute.as_string() != "constant") or rank is None or amounts is None:
        return None
    if (inputs[0] is not None and (filler is None or filler.any())) or (
        inputs[1] is not None and axes is None
    ):
        return None
    named = range(rank) if axes is None else [int(a) % rank for a in axes.ravel()]
    full = np.zeros((2, rank), np.int64)
    full[:, list(named)] = amounts.reshape(2, -1)
    if (full < 0).any() or full[:, :2].any():
        return None
    return [int(v) for v in full[:, 2:].ravel()]
