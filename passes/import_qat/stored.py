"""Weights that another tool has quantized: their integers and scales, found by running what computes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.errors import UnsupportedError
from ...ir.graph import LAYOUT, LINEAR, constant_of
from ...ir.integer_editing import IntegerEditor
from ...ir.ops import DequantizeLinear
from ...ir.qonnx import DOMAINS
from . import quantizers

_MOVES = LAYOUT | {"Slice", "Gather", "Concat", "Cast", "Expand"}


@dataclass(frozen=True)
class Stored:
    """A quantized constant.

    Attributes:
        codes: Integers, zero point taken off.
        scale: As many axes as ``codes``, broadcastable to it; ``codes * scale`` is the constant.
    """

    codes: np.ndarray
    scale: np.ndarray


def is_static(value: ir.Value | None) -> bool:
    """Whether a value depends on initializers alone."""
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        if current is None or current in seen:
            continue
        seen.add(current)
        producer = current.producer()
        if producer is not None:
            pending.extend(producer.inputs)
        elif constant_of(current) is None:
            return False
    return True


def store_weights(model: ir.Model, edit: IntegerEditor) -> list[ir.Node]:
    """Give every linear operator with quantized weights ``DequantizeLinear(integers, scale)``; returns them.

    A MatMul of a matrix becomes the Gemm of the canonical form.

    Raises:
        UnsupportedError: Weights are computed from quantized ones, or there are several scales for one
            output.
    """
    layers = []
    for node in list(model.graph):
        if node.domain or node.op_type not in LINEAR or len(node.inputs) < 2:
            continue
        edit.at(node)
        node = _weight_on_the_right(node, edit)
        weight = node.inputs[1]
        if weight is None or constant_of(weight) is not None or not is_static(weight):
            continue
        edit.at(node)
        layers.append(_store(model, node, read(model, node, weight), edit))
    return layers


def _weight_on_the_right(node: ir.Node, edit: IntegerEditor) -> ir.Node:
    """``W x`` as the transpose of ``x' W'``; returns the MatMul."""
    weight, x = node.inputs[:2]
    quantized = weight is not None and constant_of(weight) is None and is_static(weight)
    if node.op_type != "MatMul" or not quantized or weight is None or x is None or is_static(x):
        return node
    sizes = [len(_rank(v)) for v in (weight, x)]
    if sizes[0] != 2 or sizes[1] < 2:
        return node
    result, name = node.outputs[0], edit.take_name(node)

    def turned(value: ir.Value, rank: int, suffix: str) -> ir.Value:
        order = [*range(rank - 2), rank - 1, rank - 2]
        made = edit.add("Transpose", [value], f"{name}_{suffix}", {"perm": order}, like=value)
        shape = list(value.shape or [])
        made.shape = ir.Shape([shape[i] for i in order])
        return made

    product = edit.add("MatMul", [turned(x, sizes[1], "x"), turned(weight, 2, "w")], name, like=result)
    shape = list(result.shape or [])
    product.shape = ir.Shape([*shape[:-2], shape[-1], shape[-2]]) if shape else None
    back = turned(product, sizes[1], "back")
    old = result.name
    result.replace_all_uses_with(back, replace_graph_outputs=True)
    result.name, back.name = f"{old}_replaced", old
    made = product.producer()
    assert made is not None
    return made


def read(model: ir.Model, layer: ir.Node, weight: ir.Value) -> Stored:
    """The integers and scales behind a static tensor, moved as the graph moves them.

    Raises:
        UnsupportedError: There is no quantizer behind it, or float operators come after it.
    """
    path: list[ir.Node] = []
    producer, value = weight.producer(), weight
    while producer is not None and not is_quantizer(producer):
        if producer.op_type not in _MOVES or producer.domain or producer.inputs[0] is None:
            raise UnsupportedError(
                "the weights of this layer are computed from quantized ones",
                node=layer.name or "",
                op=layer.op_type,
                found=f"{producer.op_type} ({producer.name})",
                allowed="a quantizer, and operators that only move elements",
                do="quantize the weights last",
            )
        path.insert(0, producer)
        value = producer.inputs[0]
        producer = value.producer()
    assert producer is not None
    found = _decode(model, producer)
    if not path:
        return found
    opset = model.opset_imports.get("", 21)

    def moved(array: np.ndarray) -> np.ndarray:
        given = {value: array.astype(np.float32)}
        return runtime.run_nodes(path, given, [weight], opset)[0].astype(np.float64)

    scale = found.scale
    if scale.size > 1:
        scale = moved(np.broadcast_to(scale, found.codes.shape))
        # Zeros that were put between have the scale of their output.
        others = scale.max(axis=tuple(range(1, scale.ndim)), keepdims=True)
        scale = np.where(scale == 0, others, scale)
    codes = moved(found.codes)
    return Stored(codes, scale if scale.size > 1 else scale.reshape([1] * codes.ndim))


def is_quantizer(node: ir.Node) -> bool:
    """Whether a node gives quantized values as floats."""
    return node.op_type == "DequantizeLinear" or (node.domain in DOMAINS and node.op_type != "RoundTo")


def static_arrays(model: ir.Model, values: list[ir.Value]) -> list[np.ndarray]:
    """Static values, computed by onnxruntime."""
    nodes: set[ir.Node] = set()
    pending = list(values)
    while pending:
        producer = pending.pop().producer()
        if producer is not None and producer not in nodes:
            nodes.add(producer)
            pending.extend(v for v in producer.inputs if v is not None)
    ordered = [n for n in model.graph if n in nodes]
    computed = [v for v in values if v.producer() is not None]
    found = dict(zip(computed, runtime.run_nodes(ordered, {}, computed, 21), strict=True)) if computed else {}
    result = []
    for value in values:
        array = found.get(value)
        array = array if array is not None else constant_of(value)
        assert array is not None
        result.append(array)
    return result


def _decode(model: ir.Model, node: ir.Node) -> Stored:
    given = [v for v in node.inputs if v is not None]
    arrays = static_arrays(model, given)
    dequantize = DequantizeLinear.match(node)
    if dequantize is None:
        return Stored(*quantizers.decode(node, arrays, opset=model.opset_imports.get("", 21)))
    codes = arrays[0].astype(np.float64)
    scale = arrays[1].astype(np.float64)
    zero = arrays[2].astype(np.float64) if len(arrays) > 2 else np.zeros(1)
    if dequantize.block_size:
        raise UnsupportedError(
            "weights quantized in blocks have several scales for one output",
            node=node.name or "",
            op=node.op_type,
            found=f"block_size {dequantize.block_size}",
            allowed="one scale for the tensor, or one for each output channel",
            do="quantize the weights per tensor or per channel",
        )
    scale, zero = (dequantize.per_channel(a, codes.ndim) for a in (scale, zero))
    return Stored(codes - zero, scale)


def _store(model: ir.Model, node: ir.Node, stored: Stored, edit: IntegerEditor) -> ir.Node:
    """Write integers and scales as the qdq level wants them; returns the layer."""
    codes, scale = stored.codes, np.broadcast_to(stored.scale, stored.codes.shape)
    gemm = node.op_type == "MatMul" and codes.ndim == 2 and len(_rank(node.inputs[0])) == 2
    if gemm:
        codes, scale = codes.T, scale.T
    axes = [a for a in range(codes.ndim) if not np.all(scale == np.take(scale, [0], axis=a))]
    if len(axes) > 1 or (gemm and axes == [1]):
        raise UnsupportedError(
            "the weights of this layer have several scales for one output",
            node=node.name or "",
            op=node.op_type,
            found=f"scales that vary along {len(axes)} axes" if len(axes) > 1 else "a scale for each input",
            allowed="one scale for the tensor, or one for each output channel",
            do="quantize the weights per tensor or per output channel",
        )
    axis = axes[0] if axes else 0
    vector = np.moveaxis(scale, axis, 0).reshape(len(np.moveaxis(scale, axis, 0)), -1)[:, 0]
    # verify wants positive scales; a sign is the integers' affair.
    shape = [-1 if i == axis else 1 for i in range(codes.ndim)]
    codes = codes * np.where(vector < 0, -1, 1).reshape(shape)
    vector = np.abs(vector)
    _check_codes(node, codes)
    fits = codes.size == 0 or (codes.min() >= -128 and codes.max() <= 127)
    name = f"{node.name}_weight"
    weight = node.inputs[1]
    assert weight is not None
    made = DequantizeLinear.make(
        edit.constant(f"{name}_codes", codes, np.int8 if fits else np.int16),
        edit.constant(f"{name}_scale", vector if axes else vector[0], np.float32),
        axis=axis,
    )
    dequantized = edit.insert(made, f"{name}_dequantize", weight)
    dequantized.shape = ir.Shape(codes.shape)
    if not gemm:
        node.replace_input_with(1, dequantized)
        return node
    return _as_gemm(model, node, dequantized, edit)


def _check_codes(node: ir.Node, codes: np.ndarray) -> None:
    whole = np.all(codes == np.round(codes))
    if not whole or np.abs(codes).max(initial=0) > 511:
        largest = float(np.abs(codes).max())
        raise UnsupportedError(
            "the weights of this layer do not fit"
            if whole
            else "the quantized weights of this layer are no integers",
            node=node.name or "",
            op=node.op_type,
            found=f"integers up to {largest:.0f}" if whole else "a zero point that is not whole",
            allowed="weights of 1 to 8 bits, and a whole zero point",
            do="quantize the weights to 8 bits or fewer",
        )


def _as_gemm(model: ir.Model, node: ir.Node, weight: ir.Value, edit: IntegerEditor) -> ir.Node:
    """The canonical dense layer; a constant vector added behind it becomes its bias."""
    result = node.outputs[0]
    size = int((weight.shape or [0])[0])  # type: ignore[arg-type]
    bias = np.zeros(size, np.float32)
    uses = list(result.uses())
    if len(uses) == 1 and not result.is_graph_output() and uses[0].node.op_type == "Add":
        add = uses[0].node
        other = add.inputs[1 - uses[0].idx]
        if is_static(other) and add.outputs[0].shape == result.shape:
            (array,) = static_arrays(model, [other])  # type: ignore[list-item]
            if array.size == 1 or (array.size == size and array.shape[-1] == size):
                bias = np.broadcast_to(array.reshape(-1), (size,)).astype(np.float32)
                result = add.outputs[0]
    whole = result.producer()
    # normalize has split a Gemm of computed weights; the node that was in the file has the shorter name.
    split = whole is not None and str(node.name).startswith(f"{whole.name}/")
    name = edit.take_name(whole if split and whole is not None else node)
    made = edit.add(
        "Gemm",
        [node.inputs[0], weight, edit.constant(f"{name}_bias", bias)],
        name,
        {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1},
        like=result,
    )
    old = result.name
    result.replace_all_uses_with(made, replace_graph_outputs=True)
    result.name, made.name = f"{old}_replaced", old
    producer = made.producer()
    assert producer is not None
    return producer


def _rank(value: ir.Value | None) -> list[object]:
    return list(value.shape) if value is not None and value.shape is not None else []
