"""Small edits of a graph that the rewrites share; names of graph outputs always stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from .names import fresh


def is_float(value: ir.Value | None) -> bool:
    """Whether the value is known to be floating-point (of a type that numpy computes with)."""
    return value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)


def rank_of(value: ir.Value | None) -> int | None:
    """Number of axes, where known."""
    return None if value is None or value.shape is None else len(value.shape)


@dataclass
class _Taken:
    """Names that are taken, or were a moment ago."""

    nodes: set[str]
    values: set[str]


_known: ContextVar[dict[ir.Graph, _Taken] | None] = ContextVar("known", default=None)


@contextmanager
def remembering_names() -> Iterator[None]:
    """While only this module edits graphs: looking at all names for each edit takes quadratic time."""
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def _taken(graph: ir.Graph) -> _Taken:
    known = _known.get()
    if known is not None and graph in known:
        return known[graph]
    values = set(graph.initializers) | {str(i.name) for i in graph.inputs}
    nodes: set[str] = set()
    for node in graph.all_nodes():
        nodes.add(str(node.name))
        values.update(str(o.name) for o in node.outputs)
    found = _Taken(nodes, values)
    if known is not None:
        known[graph] = found
    return found


def constant(graph: ir.Graph, array: np.ndarray, stem: str) -> ir.Value:
    """A new initializer named ``stem``, or ``stem_1``, ... where that is taken."""
    name = fresh(stem, _taken(graph).values)
    # Not ir.tensor: it asks what kind of thing it is given, which takes far longer than the rest.
    tensor = ir.Tensor(np.asarray(array, order="C"), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer with a name that is not taken yet."""
    taken = model.graph.initializers
    unique, count = name, 1
    while unique in taken:
        unique, count = f"{name}_{count}", count + 1
    value = ir.Value(
        name=unique,
        const_value=ir.tensor(array, name=unique),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
    )
    model.graph.register_initializer(value)
    return value


def set_constant(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray, stem: str) -> None:
    """Give ``node`` the constant ``array`` as input ``index``.

    An initializer that only this node reads keeps its name and gets the new content.
    """
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    name = stem
    if old is not None and old.is_initializer() and not old.is_graph_output() and len(old.uses()) == 1:
        name = str(old.name)
        node.replace_input_with(index, None)
        del graph.initializers[name]
        _taken(graph).values.discard(name)
    node.replace_input_with(index, constant(graph, array, name))


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value`` once, when nothing else sees it."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def float_of(node: ir.Node, name: str, default: float) -> float:
    """A float attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def ints_of(node: ir.Node, name: str) -> list[int] | None:
    """A list of integers, None where the attribute is missing."""
    attribute = node.attributes.get(name)
    return None if attribute is None else list(attribute.as_ints())


def set_attributes(node: ir.Node, wanted: Mapping[str, int | float | list[int]]) -> bool:
    """Make ``wanted`` the attributes of the node, in that order; returns whether any changed."""
    present = {name: attribute.value for name, attribute in node.attributes.items()}
    found = {name: list(v) if isinstance(v, tuple | list) else v for name, v in present.items()}
    if found == dict(wanted) and list(found) == list(wanted):
        return False
    node.attributes.clear()
    for attribute in ir.convenience.convert_attributes(dict(wanted)):
        node.attributes.add(attribute)
    return True


def insert(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    attributes: Mapping[str, Any] | None = None,
    like: ir.Value | None = None,
) -> ir.Value:
    """Put a new node before ``before``; returns its output, which has the type and shape of ``like``."""
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    taken = _taken(graph)
    node = ir.node(op_type, inputs, attributes or {}, name=fresh(name, taken.nodes))
    node.outputs[0].name = fresh(f"{name}_output", taken.values)
    if like is not None:
        node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
    graph.insert_before(before, node)
    return node.outputs[0]


def insert_like(node: ir.Node, inputs: Sequence[ir.Value | None], name: str) -> list[ir.Value]:
    """Put the same operator on other inputs before ``node``; returns its outputs, without shapes."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    taken = _taken(graph)
    made = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        num_outputs=len(node.outputs),
        name=fresh(name, taken.nodes),
        metadata_props=dict(node.metadata_props),
    )
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.name = fresh(f"{name}_output", taken.values) if old.name else ""
        new.type = old.type
    graph.insert_before(node, made)
    return list(made.outputs)


def substitute(
    old: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None
) -> ir.Node:
    """Replace ``old`` (one output) by another operator of the same node name and output name."""
    graph = old.graph
    assert isinstance(graph, ir.Graph)
    result = old.outputs[0]
    node = ir.node(op_type, inputs, attributes or {}, name=old.name, metadata_props=dict(old.metadata_props))
    new = node.outputs[0]
    new.type, new.shape = result.type, result.shape
    graph.insert_before(old, node)
    result.replace_all_uses_with(new, replace_graph_outputs=True)
    name = result.name
    graph.remove(old, safe=True)
    new.name = name
    return node


def stand_in(old: ir.Value, new: ir.Value) -> None:
    """Let ``new``, which has a producer of its own, be read and returned in place of ``old``, by its name."""
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.type, new.shape = old.type or new.type, old.shape if old.shape is not None else new.shape
    old.name = f"{name}_before"
    new.name = name


def bypass(node: ir.Node, value: ir.Value) -> bool:
    """Remove ``node`` and let ``value`` stand for its first output; False where the interface forbids it."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    result = node.outputs[0]
    is_output = result.is_graph_output()
    if is_output and (value.producer() is None or value.is_graph_output() or value.graph is not graph):
        return False
    result.replace_all_uses_with(value, replace_graph_outputs=True)
    name = result.name
    graph.remove(node, safe=True)
    if is_output:
        value.name = name
    return True
