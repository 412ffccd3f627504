"""Every node and tensor of a protobuf model, those in subgraphs and functions included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx


def nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes: of the graph, its subgraphs and the local functions."""
    yield from _nodes(proto.graph.node)
    for function in proto.functions:
        yield from _nodes(function.node)


def graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and all subgraphs."""
    yield proto.graph
    for node in nodes(proto):
        yield from _subgraphs(node)


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All initializers and all tensors in attributes."""
    for graph in graphs(proto):
        yield from graph.initializer
    for node in nodes(proto):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


def _nodes(found: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in found:
        yield node
        for graph in _subgraphs(node):
            yield from _nodes(graph.node)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
