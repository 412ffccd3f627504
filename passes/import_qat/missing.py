"""Tensors that a quantized layer reads without a quantizer, and dynamic ones: named, or calibrated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...analysis.regions.regions import JOINS, POOLS
from ...ir import runtime
from ...ir.editing import GraphEditor
from ...ir.errors import UnsupportedError
from ...ir.graph import LAYOUT, constant_of, variable_inputs
from ...ir.integer_editing import IntegerEditor
from ...ir.ops import QuantizeLinear
from ..quantize.activations import fit_quantizer
from ..quantize.graph import insert_quantizer
from .activations import MOVES, towards_linear


def unquantized(layers: list[ir.Node]) -> dict[ir.Value, list[ir.Node]]:
    """Tensors that reach these layers without a quantizer, with the layers."""
    found: dict[ir.Value, list[ir.Node]] = {}
    for layer in layers:
        pending = [v for v in layer.inputs[:1] if v is not None]
        while pending:
            value = pending.pop()
            node = value.producer()
            if node is not None and node.op_type == "DequantizeLinear":
                continue
            if (
                node is not None
                and not node.domain
                and node.op_type in LAYOUT | POOLS | MOVES | {"Concat", "Pad"}
            ) or (node is not None and node.op_type in JOINS and len(variable_inputs(node)) == 2):
                pending.extend(variable_inputs(node))
            else:
                readers = found.setdefault(value, [])
                readers.extend([layer] if layer not in readers else [])
    return found


def refuse(missing: Mapping[ir.Value, list[ir.Node]]) -> UnsupportedError:
    """The error that names the tensors."""
    names = ", ".join(repr(str(v.name)) for v in missing)
    layers = next(iter(missing.values()))
    one = len(missing) == 1
    return UnsupportedError(
        f"{'a tensor reaches' if one else f'{len(missing)} tensors reach'} quantized layers unquantized",
        node=layers[0].name or "",
        op=layers[0].op_type,
        found=f"{names}, read by {layers[0].name!r}" if one else names,
        allowed="a quantizer with constant scales in front of every quantized layer",
        do="train with a quantizer there (for the input, too), or calibrate just"
        f" {'that one' if one else 'those'} on your data: import-qat{{calibrate-missing=true}}",
    )


def calibrate(
    model: ir.Model,
    missing: Mapping[ir.Value, list[ir.Node]],
    data: Mapping[str, np.ndarray],
    bits: int,
) -> None:
    """Put a quantizer behind each of these tensors, with the scale that loses least on ``data``."""
    arrays, edit = _values(model, list(missing), data), GraphEditor(model)
    for value in missing:
        columns = arrays[value].reshape(-1)[:, None]
        readers = [n for n in value.consumers() if n.op_type != "QuantizeLinear"]
        insert_quantizer(edit, value, fit_quantizer(columns, bits, "mse", 99.9, False), readers)


def dynamic(model: ir.Model) -> list[ir.Node]:
    """Quantizers whose scale onnxruntime would compute for each input, in front of a linear operator."""
    needed = towards_linear(model)
    return [n for n in model.graph if n.op_type == "DynamicQuantizeLinear" and n in needed]


def refuse_dynamic(nodes: list[ir.Node]) -> UnsupportedError:
    """The error for dynamic quantization."""
    value = nodes[0].inputs[0]
    return UnsupportedError(
        "the scale of this quantizer depends on the data",
        node=nodes[0].name or "",
        op=nodes[0].op_type,
        found=f"dynamic quantization of {str(value.name) if value else ''!r}",
        allowed="constant scales (static quantization)",
        do="quantize statically, or fix the scales on your data: import-qat{calibrate-missing=true}",
    )


def make_static(model: ir.Model, nodes: list[ir.Node], data: Mapping[str, np.ndarray]) -> None:
    """Give dynamic quantizers the scale and zero point that they would compute for all of ``data``."""
    edit = IntegerEditor(model)
    arrays = _values(model, [v for n in nodes if (v := n.inputs[0]) is not None], data)
    for node in nodes:
        x, name = node.inputs[0], str(node.name)
        assert x is not None
        given = ir.Value(name="x")
        clone = ir.Node("", "DynamicQuantizeLinear", [given], num_outputs=3)
        flat = arrays[x].reshape(1, -1).astype(np.float32)
        scale, zero = runtime.run_nodes([clone], {given: flat}, list(clone.outputs[1:]), 21)
        edit.at(node)
        s = edit.constant(f"{name}_scale", scale.reshape(()))
        z = edit.constant(f"{name}_zero_point", zero.reshape(()), np.uint8)
        codes = edit.insert(QuantizeLinear.make(x, s, z), edit.take_name(node), like=x)
        codes.type = ir.TensorType(ir.DataType.UINT8)
        for old, new in zip(node.outputs, (codes, s, z), strict=True):
            if old.is_graph_output():  # outputs keep their names, and no initializer is one
                new = edit.add("Identity", [new], f"{name}_returned", like=old)
                new.type, new.shape = old.type, old.shape
                new.name, old.name = old.name, f"{old.name}_before"
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        assert node.graph is not None
        node.graph.remove(node, safe=True)


def _values(
    model: ir.Model, wanted: list[ir.Value], data: Mapping[str, np.ndarray]
) -> dict[ir.Value, np.ndarray]:
    inner = [v for v in dict.fromkeys(wanted) if not v.is_graph_input()]
    found = runtime.Session(model, [str(v.name) for v in inner]).run_batched(data) if inner else {}
    arrays = {v: found[str(v.name)] for v in inner}
    return arrays | {v: np.asarray(data[str(v.name)]) for v in wanted if v.is_graph_input()}


def has_quantized_weights(node: ir.Node) -> bool:
    """Whether the weights of a linear operator are a DequantizeLinear's."""
    producer = node.inputs[1].producer() if node.inputs[1] is not None else None
    return (
        producer is not None
        and producer.op_type == "DequantizeLinear"
        and constant_of(producer.inputs[0]) is not None
    )
