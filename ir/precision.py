"""Models of half, bfloat16 and double precision, as the single precision that everything else works in.

A circuit computes on integers, whatever the floats were; onnxruntime has few kernels for the other types (of
bfloat16 nearly none, and no quantizer for any). Inputs and outputs keep their types, behind a Cast; those of
bfloat16, which numpy does not know, become float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from . import walk
from .errors import ModelError
from .names import fresh

OTHER = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
"""Floating-point types that become float32."""
_TYPES = frozenset({"to", "dtype", "stash_type", "softmax_precision", "precision"})
"""Attributes that name the type of a result, or that something is computed in."""


def to_single(proto: onnx.ModelProto) -> None:
    """Make a model compute in float32, in place; its inputs and outputs keep their declared types.

    Raises:
        ModelError: A weight is too large for float32.
    """
    if not any(kind in OTHER for kind in _types(proto)):
        return
    for tensor in walk.tensors(proto):
        if tensor.data_type in OTHER:
            _narrow(tensor)
    for node in walk.nodes(proto):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.INT and attribute.name in _TYPES and attribute.i in OTHER:
                attribute.i = TensorProto.FLOAT
    for graph in walk.graphs(proto):
        infos = [*graph.value_info]
        if graph is not proto.graph:
            infos += [*graph.input, *graph.output]
        for info in infos:
            _declare(info)
    for function in proto.functions:
        for info in function.value_info:
            _declare(info)
    _cast_ports(proto.graph)


def _types(proto: onnx.ModelProto) -> set[int]:
    """Every element type that the model names."""
    kinds = {t.data_type for t in walk.tensors(proto)}
    for graph in walk.graphs(proto):
        for info in (*graph.input, *graph.output, *graph.value_info):
            kinds.add(info.type.tensor_type.elem_type)
    for node in walk.nodes(proto):
        kinds.update(a.i for a in node.attribute if a.type == AttributeProto.INT and a.name in _TYPES)
    return kinds


def _declare(info: onnx.ValueInfoProto) -> None:
    if info.type.tensor_type.elem_type in OTHER:
        info.type.tensor_type.elem_type = TensorProto.FLOAT


def _narrow(tensor: TensorProto) -> None:
    array = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if np.isinf(single).any() and not np.isinf(array.astype(np.float64)).any():
        raise ModelError(
            "the model's weights are too large for float32",
            found=f"tensor {tensor.name!r}: values up to {np.abs(array).max():.3g}",
            allowed="magnitudes up to 3.4e38",
            do="scale the weights down, or export the model as float32",
        )
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(single), tensor.name))


def _cast_ports(graph: onnx.GraphProto) -> None:
    """A Cast behind every input and in front of every output of another type."""
    held = {i.name for i in graph.initializer}
    taken = held | {i.name for i in graph.input} | {o for n in graph.node for o in n.output}
    inputs = {i.name: i for i in graph.input if i.name not in held}
    for info in graph.input:
        if info.name in held:
            _declare(info)
    before: list[onnx.NodeProto] = []
    new: dict[str, str] = {}
    for name, info in inputs.items():
        kind = info.type.tensor_type.elem_type
        if kind in OTHER and kind != TensorProto.BFLOAT16:
            new[name] = fresh(f"{name}_single", taken)
            before.append(helper.make_node("Cast", [name], [new[name]], to=TensorProto.FLOAT))
        _declare_bfloat16(info)
    after: list[onnx.NodeProto] = []
    made: dict[str, str] = {}
    for info in graph.output:
        kind = info.type.tensor_type.elem_type
        if kind in OTHER and kind != TensorProto.BFLOAT16 and info.name not in inputs:
            made[info.name] = fresh(f"{info.name}_single", taken)
            after.append(helper.make_node("Cast", [made[info.name]], [info.name], to=kind))
        _declare_bfloat16(info)
    for tensor in graph.initializer:
        tensor.name = made.get(tensor.name, tensor.name)  # an output that is a constant
    _rename(graph.node, new | made, made)
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)


def _declare_bfloat16(info: onnx.ValueInfoProto) -> None:
    if info.type.tensor_type.elem_type == TensorProto.BFLOAT16:
        info.type.tensor_type.elem_type = TensorProto.FLOAT


def _rename(nodes: object, read: dict[str, str], made: dict[str, str]) -> None:
    """Give values other names, also where subgraphs read them from outside."""
    for node in nodes:  # type: ignore[attr-defined]
        for index, name in enumerate(node.input):
            node.input[index] = read.get(name, name)
        for index, name in enumerate(node.output):
            node.output[index] = made.get(name, name)
        for attribute in node.attribute:
            for inner in (
                *([attribute.g] if attribute.type == AttributeProto.GRAPH else []),
                *attribute.graphs,
            ):
                own = {i.name for i in inner.input} | {t.name for t in inner.initializer}
                own |= {o for n in inner.node for o in n.output}
                seen = {k: v for k, v in read.items() if k not in own}
                for info in inner.output:
                    info.name = seen.get(info.name, info.name)
                _rename(inner.node, seen, {})
