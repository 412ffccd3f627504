"""The graph edits of quantize: quantizers, quantized weights and new biases."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.regions.linear import Linear
from ...ir.editing import GraphEditor
from ...ir.graph import constant_added_to
from ...ir.ops import ActivationQuantizer, DequantizeLinear
from .activations import Quantizer


def insert_quantizer(
    edit: GraphEditor, value: ir.Value, quantizer: Quantizer, readers: list[ir.Node]
) -> list[ir.Node]:
    """[Sub ->] [Mul ->] QuantizeLinear -> [Clip ->] DequantizeLinear behind ``value``, for ``readers`` only.

    Returns:
        The new nodes, in order.
    """
    name, source, scale = str(value.name), value, np.float32(quantizer.scale[0])
    moved: list[ir.Value] = []
    edit.behind(value)

    if quantizer.absorbed:
        rank = len(value.shape) if value.shape is not None else 2
        if quantizer.offset is not None:
            offset = quantizer.along(quantizer.offset, rank).astype(np.float32)
            constant = edit.constant(f"{name}_offset", offset)
            source = _add(edit, "Sub", [source, constant], value, f"{name}_from_offset")
            moved.append(source)
        inverse = quantizer.along(quantizer.inverse, rank).astype(np.float32)
        source = _add(edit, "Mul", [source, edit.constant(f"{name}_unit", inverse)], value, f"{name}_to_unit")
        moved.append(source)
        scale = np.float32(1.0)
    s = edit.constant(f"{name}_scale", np.asarray(scale, np.float32))
    # A zero point below 0 needs a signed storage; there are fewer than 8 bits then.
    storage = np.int8 if quantizer.zero_point < 0 else np.uint8
    z = edit.constant(f"{name}_zero_point", np.asarray(quantizer.zero_point, storage))
    ends = []
    if quantizer.bits < 8:
        codes = {"low": 0, "high": quantizer.top}
        ends = [edit.constant(f"{name}_{k}", np.asarray(v, storage)) for k, v in codes.items()]
    made = ActivationQuantizer.insert(edit, source, name, scale=s, zero_point=z, ends=ends, like=value)
    for reader in readers:
        for index, given in enumerate(reader.inputs):
            if given is value:
                reader.replace_input_with(index, made.output)
    return [*(node for v in moved if (node := v.producer()) is not None), *made.nodes]


def quantize_weight(
    edit: GraphEditor, linear: Linear, integers: np.ndarray, scale: np.ndarray
) -> list[ir.Node]:
    """Replace a weight by ``DequantizeLinear(int8, scale)``; returns the new node."""
    target, name = linear.node, f"{linear.node.name}_weight"
    codes = edit.constant(f"{name}_codes", linear.stored(integers).astype(np.int8))
    factor = edit.constant(f"{name}_scale", scale.astype(np.float32))
    weight = target.inputs[1]
    assert weight is not None
    edit.at(target)
    node = DequantizeLinear.make(codes, factor, axis=linear.out_axis)
    restored = edit.insert(node, f"{name}_dequantize", weight)
    restored.type = ir.TensorType(ir.DataType.FLOAT)
    target.replace_input_with(1, restored)
    return [node]


def set_bias(edit: GraphEditor, linear: Linear, offset: np.ndarray) -> list[ir.Node]:
    """Make ``offset`` (out) the bias of a Gemm or Conv, or add it behind a MatMul; returns new nodes."""
    target = linear.node
    if target.op_type != "MatMul":
        bias = edit.constant(f"{target.name}_bias", offset.astype(np.float32))
        if len(target.inputs) < 3:
            target.resize_inputs(3)
        target.replace_input_with(2, bias)
        return []
    output = target.outputs[0]
    if (addition := constant_added_to(output)) is not None:
        add, index, old = addition
        add.replace_input_with(index, edit.constant(f"{target.name}_bias", (old + offset).astype(np.float32)))
        return []
    constant = edit.constant(f"{target.name}_bias", offset.astype(np.float32))
    edit.behind(output)
    biased = _add(edit, "Add", [output, constant], output, f"{target.name}_refit")
    if output.is_graph_output():
        edit.stand_in(output, biased, "product")
    else:
        edit.read_instead(output, biased)
    return [node for node in [biased.producer()] if node is not None]


def _add(edit: GraphEditor, op: str, inputs: list[ir.Value], like: ir.Value, name: str) -> ir.Value:
    """A float operator whose output is shaped like ``like``."""
    made = edit.add(op, inputs, name, like=like)
    made.type = ir.TensorType(ir.DataType.FLOAT)
    return made
