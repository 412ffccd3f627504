"""What a protobuf must keep to before ONNX's own checker, converter and shape inference may read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx

from ..errors import ModelError
from . import attributes, calls, weights
from .limits import FileLimits, hint
from .text import must_be_text

Nodes = Sequence[onnx.NodeProto]


def check_structure(proto: onnx.ModelProto, limits: FileLimits) -> None:
    """Refuse what is too large, too deep, or would crash what reads it next.

    Checked are the number of nodes (functions expanded), nesting, functions that call themselves, texts that
    are no UTF-8, the sizes that tensors declare against what they hold, shapes, opsets, and attributes.

    Raises:
        ModelError: A limit or rule is broken; the place is named.
    """
    _opsets(proto)
    for entry in proto.metadata_props:
        must_be_text(entry.key)
    counts: Counter[int] = Counter()
    bodies: list[tuple[int, Nodes, Sequence[onnx.GraphProto]]] = [(-1, proto.graph.node, [proto.graph])]
    bodies += [(i, f.node, ()) for i, f in enumerate(proto.functions)]
    called: dict[int, Counter[tuple[str, str]]] = {}
    written = 0
    for index, nodes, graphs in bodies:
        called[index] = Counter()
        for node in _every(nodes, graphs, limits):
            counts[index] += 1
            written += 1
            if written > limits.nodes:
                raise _too_many(f"more than {limits.nodes} nodes", limits)
            called[index][node.domain, node.op_type] += 1
            must_be_text(*node.input, *node.output, node.name, node.op_type, node.domain)
            attributes.check(node, in_function=index >= 0)
    defined: set[tuple[str, str]] = set()
    for function in proto.functions:
        must_be_text(function.name, function.domain, *function.input, *function.output, *function.attribute)
        if (function.domain, function.name) in defined:
            raise ModelError(
                "the model defines a function twice",
                found=f"{function.name} of domain {function.domain!r}",
                allowed="one definition for each function",
            )
        defined.add((function.domain, function.name))
    total = calls.expanded(proto, counts, called, limits)
    if total > limits.nodes:
        raise _too_many(f"{_about(total)} nodes once its functions are expanded", limits)
    if not proto.graph.output:
        raise ModelError(
            "the model has no outputs", found="0 outputs", allowed="at least one", do="export the model again"
        )


def _every(nodes: Nodes, graphs: Sequence[onnx.GraphProto], limits: FileLimits) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs included; what else the graphs hold is checked on the way."""
    for graph in graphs:
        _graph(graph, limits)
    stack: list[tuple[Nodes, int]] = [(nodes, 0)]
    while stack:
        found, depth = stack.pop()
        for node in found:
            yield node
            for attribute in node.attribute:
                for tensor in (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])):
                    weights.check(tensor, limits)
                inner = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
                if inner and depth >= limits.nesting:
                    raise ModelError(
                        "the model's subgraphs are nested too deep",
                        node=node.name,
                        op=node.op_type,
                        found=f"more than {limits.nesting} inside each other",
                        allowed=f"up to {limits.nesting}",
                        do=hint("nesting"),
                    )
                for graph in inner:
                    _graph(graph, limits)
                    stack.append((graph.node, depth + 1))


def _graph(graph: onnx.GraphProto, limits: FileLimits) -> None:
    for tensor in graph.initializer:
        weights.check(tensor, limits)
    for value in (*graph.input, *graph.output, *graph.value_info):
        weights.check_type(value, limits)
    must_be_text(graph.name)
    names = Counter(o.name for o in graph.input) + Counter(t.name for t in graph.initializer)
    inputs = {i.name for i in graph.input}
    for name, count in names.items():
        if count > (2 if name in inputs else 1):
            raise ModelError(
                "two values of the model have the same name",
                found=repr(name),
                allowed="a name for each value",
            )


def _opsets(proto: onnx.ModelProto) -> None:
    seen: dict[str, int] = {}
    for imported in proto.opset_import:
        must_be_text(imported.domain)
        domain = "" if imported.domain == "ai.onnx" else imported.domain
        if seen.setdefault(domain, imported.version) != imported.version:
            raise ModelError(
                "the model imports two versions of one operator set",
                found=f"domain {domain or 'ai.onnx'!r}: {seen[domain]} and {imported.version}",
                allowed="one version",
            )
        if not 1 <= imported.version < 2**31:
            raise ModelError(
                "the model imports an operator set that there is not",
                found=f"domain {domain or 'ai.onnx'!r}, version {imported.version}",
                allowed="version 1 or later",
            )
    if proto.ir_version < 1:
        raise ModelError(
            "the model does not say its IR version",
            found=str(proto.ir_version),
            allowed="IR version 3 or later",
        )


def _too_many(found: str, limits: FileLimits) -> ModelError:
    return ModelError(
        "the model has too many nodes", found=found, allowed=f"up to {limits.nodes}", do=hint("nodes")
    )


def _about(count: int) -> str:
    return str(count) if count < 10**9 else f"about 10^{len(str(count)) - 1}"
