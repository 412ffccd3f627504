"""Float operators of the encrypted part: from an integer tensor to the integers of the next quantizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from ...ir import dialect
from ...ir.errors import UnsupportedError
from ...ir.graph import LAYOUT, LINEAR, MAXIMA, constant_of, variable_inputs
from ...ir.movement import may_move
from .elementwise import ElementwiseProbe

AFFINE = frozenset({"Mul", "Add", "Sub"})
"""Operators that a table takes in where their other operand is a constant."""


@dataclass(frozen=True)
class FusionGroup:
    """A part of the graph that becomes one table.

    Attributes:
        source: The integer tensor that it reads.
        nodes: Its nodes, in order; the last one makes ``output``.
        output: The integers of the quantizer, zero point taken off.
        second: The other integer tensor of a function of two.
    """

    source: ir.Value
    nodes: list[ir.Node]
    output: ir.Value
    second: ir.Value | None = None


def find(model: ir.Model) -> list[FusionGroup]:
    """All fusion groups of an integer-level model, in topological order.

    Raises:
        UnsupportedError: An operator between two quantizers does not work element by element on one tensor.
    """
    order = {n: i for i, n in enumerate(model.graph)}
    encrypted = after_encrypt(model)
    probe = ElementwiseProbe(model.graph.opset_imports.get("", 21))
    fusion_groups = []
    for node in model.graph:
        if node.op_type == "QuantizeLinear" and node in encrypted:
            fusion_groups.append(_fusion_group(node, order, probe))
    return fusion_groups


def after_encrypt(model: ir.Model) -> set[ir.Node]:
    """Nodes of the encrypted part: reached from an Encrypt without crossing a Decrypt."""
    reached: set[ir.Node] = set()
    for node in model.graph:
        if (node.domain == dialect.DOMAIN and node.op_type == "Encrypt") or (
            node.op_type != "Decrypt"
            and any(
                (p := v.producer()) is not None and p in reached and p.op_type != "Decrypt"
                for v in variable_inputs(node)
            )
        ):
            reached.add(node)
    return reached


def _fusion_group(quantizer: ir.Node, order: dict[ir.Node, int], probe: ElementwiseProbe) -> FusionGroup:
    tail = _tail(quantizer)
    sources, body = _backwards(quantizer, probe, _is_source)
    second = None
    if len(sources) > 1:  # a function of a pair: it needs both as few bits as they have
        sources, body = _backwards(quantizer, probe, is_integer)
    if len(sources) > 2:
        names = ", ".join(str(v.name) for v in sources)
        raise _refused(quantizer, f"it depends on {len(sources)} encrypted tensors: {names}")
    if len(sources) == 2:
        source, second = sources
    else:
        source, body = _through_affine(sources[0], body)
    nodes = sorted({*body, quantizer, *tail}, key=order.__getitem__)
    return FusionGroup(source, nodes, nodes[-1].outputs[0], second)


def _tail(quantizer: ir.Node) -> list[ir.Node]:
    """Clip, Cast and the zero point behind a quantizer."""
    nodes: list[ir.Node] = []
    current = quantizer
    while True:
        readers = list(current.outputs[0].consumers())
        if len(readers) != 1 or (current.op_type == "Cast" and not _is_shift(readers[0])):
            return nodes
        if readers[0].op_type not in {"Clip", "Cast"} and current.op_type != "Cast":
            return nodes
        current = readers[0]
        nodes.append(current)
        if current.op_type in AFFINE:
            return nodes


def _is_shift(node: ir.Node) -> bool:
    return node.op_type in {"Add", "Sub"} and len(variable_inputs(node)) == 1


def _is_source(value: ir.Value) -> bool:
    """Integers end a search backwards: outputs of linear, layout and dialect operators and of additions."""
    producer = value.producer()
    if producer is None or producer.domain == dialect.DOMAIN:
        return True
    if producer.op_type in LINEAR | LAYOUT | {"ReduceSum"}:
        return True
    variable = variable_inputs(producer)
    if may_move(producer) or producer.op_type in MAXIMA or (producer.op_type == "Mul" and len(variable) == 2):
        return all(is_integer(v) for v in variable)
    return producer.op_type in {"Add", "Sub"} and len(variable) == 2


def _backwards(
    quantizer: ir.Node, probe: ElementwiseProbe, ends: Callable[[ir.Value], bool]
) -> tuple[list[ir.Value], set[ir.Node]]:
    """The integer tensors that a quantizer's input is computed from, and the nodes between."""
    body: set[ir.Node] = set()
    sources: dict[ir.Value, None] = {}
    start = quantizer.inputs[0]
    assert start is not None
    pending = [start]
    while pending:
        value = pending.pop()
        producer = value.producer()
        if producer is not None and producer in body:
            continue
        variable = variable_inputs(producer) if producer is not None else []
        if ends(value) and not _same_base_sum(producer, variable):
            sources[value] = None
            continue
        assert producer is not None
        if not probe(producer, variable):
            raise _refused(producer, f"{producer.op_type} mixes elements")
        body.add(producer)
        pending.extend(variable)
    return list(sources), body


def _same_base_sum(producer: ir.Node | None, variable: list[ir.Value]) -> bool:
    """Whether an addition is inside a diamond: both operands are float functions, not integers."""
    if producer is None or producer.op_type not in {"Add", "Sub"} or len(variable) != 2:
        return False
    return any(not is_integer(v) for v in variable)


def is_integer(value: ir.Value) -> bool:
    """Whether a tensor holds integers: made by integer operators from integers."""
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        producer = current.producer()
        if current in seen:
            continue
        seen.add(current)
        if producer is None:
            return False
        if producer.domain == dialect.DOMAIN or producer.op_type in LINEAR | {"ReduceSum"}:
            continue
        constants = [c for v in producer.inputs if (c := constant_of(v)) is not None]
        whole = all((c == c.round()).all() for c in constants)
        keeps = may_move(producer) or producer.op_type in LAYOUT
        if keeps or (producer.op_type in AFFINE | MAXIMA and whole):
            pending.extend(variable_inputs(producer))
        elif producer.op_type in AFFINE and len(variable_inputs(producer)) == 1 and _is_shift(producer):
            return False
        elif producer.op_type == "Cast" and _from_quantizer(producer):
            continue
        else:
            return False
    return True


def _from_quantizer(cast: ir.Node) -> bool:
    source = cast.inputs[0].producer() if cast.inputs[0] is not None else None
    return source is not None and source.op_type in {"QuantizeLinear", "Clip"}


def _through_affine(source: ir.Value, body: set[ir.Node]) -> tuple[ir.Value, set[ir.Node]]:
    """Let the table take in constants added to or multiplied with its input; its range only shrinks."""
    while True:
        producer = source.producer()
        if producer is None or producer.domain != "" or producer.op_type not in AFFINE:
            return source, body
        variable = variable_inputs(producer)
        if len(variable) != 1 or not is_integer(variable[0]) or variable[0].shape != source.shape:
            return source, body
        source, body = variable[0], {*body, producer}


def _refused(node: ir.Node, found: str) -> UnsupportedError:
    return UnsupportedError(
        "this part of the network cannot become a table",
        node=node.name or "",
        op=node.op_type,
        found=found,
        allowed="operators that work element by element on one encrypted tensor",
        do="put a quantizer in front of this node, or replace the operator",
    )
