"""The graph edits of quantize: quantizers, quantized weights and new biases."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.regions.linear import Linear
from ...ir.editing import initializer
from ...ir.graph import constant_of
from .activations import Quantizer


def node(op: str, inputs: list[ir.Value], like: ir.Value, name: str, **attributes: int) -> ir.Node:
    """A float node whose output is shaped like ``like``; node and output take ``name``."""
    made = ir.node(op, inputs, attributes or None, name=name)
    output = made.outputs[0]
    output.name = f"{name}_output"
    output.shape = like.shape
    output.type = ir.TensorType(ir.DataType.FLOAT)
    return made


def insert_quantizer(
    model: ir.Model, value: ir.Value, quantizer: Quantizer, readers: list[ir.Node]
) -> list[ir.Node]:
    """[Sub ->] [Mul ->] QuantizeLinear -> [Clip ->] DequantizeLinear behind ``value``, for ``readers`` only.

    Returns:
        The new nodes, in order.
    """
    name = str(value.name)
    nodes: list[ir.Node] = []
    current, scale = value, np.float32(quantizer.scale[0])
    if quantizer.absorbed:
        rank = len(value.shape) if value.shape is not None else 2
        if quantizer.offset is not None:
            offset = quantizer.along(quantizer.offset, rank).astype(np.float32)
            constant = initializer(model, f"{name}_offset", offset)
            nodes.append(node("Sub", [current, constant], value, f"{name}_from_offset"))
            current = nodes[-1].outputs[0]
        inverse = quantizer.along(quantizer.inverse, rank).astype(np.float32)
        nodes.append(
            node("Mul", [current, initializer(model, f"{name}_unit", inverse)], value, f"{name}_to_unit")
        )
        current, scale = nodes[-1].outputs[0], np.float32(1.0)
    s = initializer(model, f"{name}_scale", np.asarray(scale, np.float32))
    # A zero point below 0 needs a signed storage; there are fewer than 8 bits then.
    storage = np.int8 if quantizer.zero_point < 0 else np.uint8
    z = initializer(model, f"{name}_zero_point", np.asarray(quantizer.zero_point, storage))
    nodes.append(node("QuantizeLinear", [current, s, z], value, f"{name}_quantize"))
    if quantizer.bits < 8:
        low = initializer(model, f"{name}_low", np.asarray(0, storage))
        high = initializer(model, f"{name}_high", np.asarray(quantizer.top, storage))
        nodes.append(node("Clip", [nodes[-1].outputs[0], low, high], value, f"{name}_clip"))
    for integer in nodes[-2 if quantizer.bits < 8 else -1 :]:
        integer.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(np.dtype(storage)))
    nodes.append(node("DequantizeLinear", [nodes[-1].outputs[0], s, z], value, f"{name}_dequantize"))
    _insert_after(model, value, nodes)
    for reader in readers:
        for index, given in enumerate(reader.inputs):
            if given is value:
                reader.replace_input_with(index, nodes[-1].outputs[0])
    return nodes


def _insert_after(model: ir.Model, value: ir.Value, nodes: list[ir.Node]) -> None:
    producer = value.producer()
    if producer is not None:
        model.graph.insert_after(producer, nodes)
    elif len(model.graph):
        model.graph.insert_before(model.graph.node(0), nodes)


def quantize_weight(
    model: ir.Model, linear: Linear, integers: np.ndarray, scale: np.ndarray
) -> list[ir.Node]:
    """Replace a weight by ``DequantizeLinear(int8, scale)``; returns the new node."""
    target, name = linear.node, f"{linear.node.name}_weight"
    codes = initializer(model, f"{name}_codes", linear.stored(integers).astype(np.int8))
    factor = initializer(model, f"{name}_scale", scale.astype(np.float32))
    weight = target.inputs[1]
    assert weight is not None
    dequantize = node("DequantizeLinear", [codes, factor], weight, f"{name}_dequantize", axis=linear.out_axis)
    model.graph.insert_before(target, [dequantize])
    target.replace_input_with(1, dequantize.outputs[0])
    return [dequantize]


def set_bias(model: ir.Model, linear: Linear, offset: np.ndarray) -> list[ir.Node]:
    """Make ``offset`` (out) the bias of a Gemm or Conv, or add it behind a MatMul; returns new nodes."""
    target = linear.node
    if target.op_type != "MatMul":
        bias = initializer(model, f"{target.name}_bias", offset.astype(np.float32))
        if len(target.inputs) < 3:
            target.resize_inputs(3)
        target.replace_input_with(2, bias)
        return []
    output = target.outputs[0]
    readers = list(output.uses())
    if len(readers) == 1 and not output.is_graph_output() and readers[0].node.op_type == "Add":
        add = readers[0].node
        old = constant_of(add.inputs[1 - readers[0].idx])
        if old is not None:
            moved = initializer(model, f"{target.name}_bias", (old + offset).astype(np.float32))
            add.replace_input_with(1 - readers[0].idx, moved)
            return []
    constant = initializer(model, f"{target.name}_bias", offset.astype(np.float32))
    add = node("Add", [output, constant], output, f"{target.name}_refit")
    if output.is_graph_output():  # outputs keep their names
        name = str(output.name)
        output.name = f"{name}_product"
        add.outputs[0].name = name
    ir.convenience.replace_all_uses_with(output, add.outputs[0], replace_graph_outputs=True)
    add.replace_input_with(0, output)
    model.graph.insert_after(target, [add])
    return [add]
