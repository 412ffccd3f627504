"""Activation quantizers of other tools in the one form of the qdq level."""

from __future__ import annotations

import networkx as nx
import numpy as np
import onnx_ir as ir

from ...ir.errors import UnsupportedError
from ...ir.graph import LAYOUT, LINEAR, constant_of, variable_inputs
from ...ir.integer_editing import IntegerEditor
from ...ir.ops import DequantizeLinear, QuantizeLinear
from ...ir.qonnx import DOMAINS
from . import quantizers

MOVES = LAYOUT | {"Slice", "Gather", "DepthToSpace", "SpaceToDepth", "Expand", "Tile", "MaxPool"}
"""What moves or chooses elements of its first input: it commutes with a positive scale."""
_STORAGE = (ir.DataType.UINT8, ir.DataType.INT8)
_NARROW = {
    ir.DataType.UINT4: (np.uint8, 0, 15),
    ir.DataType.INT4: (np.int8, -8, 7),
    ir.DataType.UINT2: (np.uint8, 0, 3),
    ir.DataType.INT2: (np.int8, -2, 1),
}


def towards_linear(model: ir.Model) -> set[ir.Node]:
    """Nodes that a linear operator depends on: what they compute may have to be encrypted."""
    graph = nx.DiGraph()
    graph.add_nodes_from(model.graph)
    for node in model.graph:
        graph.add_edges_from((p, node) for v in variable_inputs(node) if (p := v.producer()) is not None)
    found: set[ir.Node] = set()
    for node in model.graph:
        if node.op_type in LINEAR and not node.domain and node not in found:
            found |= {node, *nx.ancestors(graph, node)}
    return found


def rewrite(model: ir.Model, edit: IntegerEditor) -> int:
    """Bring all activation quantizers to QuantizeLinear -> Clip -> DequantizeLinear; returns their number.

    What comes behind the last linear operator is the client's, in whatever form.

    Raises:
        UnsupportedError: A width above 8 bits, or a scale that depends on the data.
    """
    needed = towards_linear(model)
    count = 0
    for node in list(model.graph):
        if node.graph is None:
            continue
        edit.at(node)
        if node.domain in DOMAINS and node.op_type != "RoundTo":
            count += _qonnx(node, edit, node in needed)
        elif node.domain == "" and node.op_type == "QuantizeLinear":
            if node in needed:
                _check_quantize(node)
                _widen(node, edit)
                count += 1
        elif node.domain == "" and node.op_type == "DequantizeLinear" and node in needed:
            _check_dequantize(node)
            _before_moves(node, edit)
    return count


def _qonnx(node: ir.Node, edit: IntegerEditor, needed: bool) -> int:
    try:
        constants = quantizers.constants_of(node)
        quantizer = quantizers.read(node, constants, not _non_negative(node.inputs[0]))
        new = quantizers.insert(edit, node, quantizer)
    except UnsupportedError:
        if needed and not _wide_between(node):
            raise
        return 0  # the client's, or part of a table: onnxruntime runs its body
    edit.replace(node, new)
    return 1


def _wide_between(node: ir.Node) -> bool:
    """Whether a quantizer of too many bits is followed by others before any linear operator reads it."""
    pending = list(node.outputs[0].consumers())
    while pending:
        reader = pending.pop()
        if reader.domain in DOMAINS or reader.op_type == "QuantizeLinear":
            continue
        if reader.op_type in LINEAR:
            return False
        pending.extend(reader.outputs[0].consumers())
    return True


def _non_negative(value: ir.Value | None) -> bool:
    """Whether a tensor is a quantizer's without negative integers, moved, pooled or scaled."""
    while value is not None:
        node = value.producer()
        if node is None:
            return False
        if node.op_type == "Relu":
            return True
        if (dequantize := DequantizeLinear.match(node)) is not None:
            zero = dequantize.zero_point
            return dequantize.input.dtype == ir.DataType.UINT8 and (zero is None or not zero.any())
        factor = constant_of(node.inputs[1]) if node.op_type == "Mul" else None
        pools = {"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"}
        if node.op_type not in MOVES | pools and (factor is None or np.any(factor < 0)):
            return False
        value = node.inputs[0]
    return False


def _check_quantize(node: ir.Node) -> None:
    quantizers.constants_of(node)
    dtype = node.outputs[0].dtype
    zero = QuantizeLinear.of(node).zero_point
    if zero is not None:
        dtype = ir.DataType.from_numpy(zero.dtype)
    if dtype is None or dtype in _STORAGE or dtype in _NARROW:
        return
    raise UnsupportedError(
        "this quantizer has a bit width that tables do not take",
        node=node.name or "",
        op=node.op_type,
        found=str(dtype).lower(),
        allowed="int8 or uint8, or narrower",
        do="quantize activations to 8 bits or fewer",
    )


def _widen(node: ir.Node, edit: IntegerEditor) -> None:
    """A quantizer to 2 or 4 bits stores 8 and clips, as all others do."""
    codes = node.outputs[0]
    dtype = codes.dtype
    if dtype not in _NARROW:
        return
    storage, low, high = _NARROW[dtype]
    zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
    assert zero is not None
    wide = edit.constant(f"{node.name}_zero_point", zero.astype(storage), storage)
    for reader in list(codes.consumers()):
        if reader.op_type == "DequantizeLinear":
            reader.replace_input_with(2, wide)
    node.replace_input_with(2, wide)
    node.attributes.pop("output_dtype", None)
    codes.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(storage)))
    ends = [
        edit.constant(f"{node.name}_{k}", np.asarray(v), storage) for k, v in (("low", low), ("high", high))
    ]
    uses = list(codes.uses())
    clipped = edit.behind(codes).add("Clip", [codes, *ends], f"{node.name}_clip", like=codes)
    clipped.type = codes.type
    for use in uses:
        use.node.replace_input_with(use.idx, clipped)


def _check_dequantize(node: ir.Node) -> None:
    if constant_of(node.inputs[0]) is None:
        quantizers.constants_of(node)


def _before_moves(node: ir.Node, edit: IntegerEditor) -> None:
    """Dequantize first, move elements then: integers that are moved are still the quantizer's."""
    codes = node.inputs[0]
    path: list[ir.Node] = []
    while codes is not None and (mover := codes.producer()) is not None and mover.op_type in MOVES:
        if mover.domain or len(variable_inputs(mover)) != 1:
            break
        path.insert(0, mover)
        codes = mover.inputs[0]
    factors = constant_of(node.inputs[1])
    if not path or codes is None or factors is None or factors.size > 1:
        return
    name = edit.take_name(node)
    value = edit.insert(DequantizeLinear.make(codes, *node.inputs[1:]), name, like=codes)
    for mover in path:
        attributes = list(mover.attributes.values())
        value = edit.add(
            mover.op_type,
            [value, *mover.inputs[1:]],
            f"{mover.name}_float",
            attributes,
            like=mover.outputs[0],
        )
    edit.replace(node, value)
