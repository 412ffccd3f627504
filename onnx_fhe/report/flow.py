"""The network before and after, as steps that one can read from top to bottom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from ..ir.graph import LINEAR, is_dialect, title_of, variable_inputs
from ..ir.ops import Decrypt, Encrypt, TableLookup
from ..ir.placement import Placement, placements_of
from ..places import AFTER, BEFORE, CONSTANT, ENCRYPTED
from ..record import Record
from . import text
from .layers import Layer

PLACES = {BEFORE: "client", ENCRYPTED: "server", AFTER: "client", CONSTANT: "", "": ""}


@dataclass(frozen=True)
class Step:
    """An operator, or what became of a layer.

    Attributes:
        operator, name: What it is called.
        detail: What comes out of it, and of how much it is made, in words.
        after: Names of the steps that it reads, where that is not just the one before.
        layer: The layer that it is, if it is one.
    """

    operator: str
    name: str
    detail: str
    after: tuple[str, ...] = ()
    layer: Layer | None = None


@dataclass(frozen=True)
class Zone:
    """Steps that run at one place: ``client``, ``server``, or one that is not known."""

    place: str
    steps: tuple[Step, ...]


def before(record: Record | None, layers: tuple[Layer, ...]) -> tuple[Zone, ...]:
    """The network as imported; empty where it was not recorded."""
    if record is None:
        return ()
    named = {x.name: x for x in layers}
    steps, previous = [], ""
    for node in record.nodes:
        details = [text.shape(node.shape)] if len(node.shape) > 1 else []
        if node.parameters:
            details.append(text.amount(node.parameters, "parameter"))
        # The first operator reads the network's input: that goes without saying.
        reads = () if not previous or node.inputs in ((previous,), ()) else node.inputs
        step = Step(node.operator, node.name, " · ".join(details), reads, named.get(node.name))
        steps.append((PLACES.get(node.where, ""), step))
        previous = node.name
    return _zones(steps)


def after(model: ir.Model, layers: tuple[Layer, ...]) -> tuple[Zone, ...]:
    """The integer-level model: what the client does, and the layers that run encrypted."""
    placements = placements_of(model)
    named = {x.name: x for x in layers}
    steps: list[tuple[str, Step]] = []
    owner: dict[ir.Value, str] = {}
    seen: set[str] = set()
    for node in model.graph:
        side = placements.get(node.outputs[0])
        if side is Placement.CONSTANT:
            continue
        if side is not Placement.SERVER or Encrypt.match(node):
            steps += _client(node)
            if side is Placement.SERVER:
                owner[node.outputs[0]] = "the encrypted input"
            continue
        lookup = TableLookup.match(node)
        title, operator = lookup.title if lookup is not None else title_of(node)
        sources = tuple(dict.fromkeys(owner[v] for v in variable_inputs(node) if v in owner))
        if title in named or _is_step(node):
            if title not in seen:
                last = (steps[-1][1].name or "the encrypted input") if steps else ""
                apart = sources if len(sources) > 1 or (sources and sources != (last,)) else ()
                steps.append(("server", Step(operator, title, _shape(node), apart, named.get(title))))
                seen.add(title)
            owner[node.outputs[0]] = title
        elif sources:
            owner[node.outputs[0]] = sources[0]
    return _zones(steps)


def _client(node: ir.Node) -> Iterable[tuple[str, Step]]:
    if (declares := Encrypt.match(node) or Decrypt.match(node)) is not None:
        bits = text.amount(declares.bits, "bit")
        detail = f"{_shape(node)} · {declares.low} to {declares.high} ({bits})"
        yield "client", Step(declares.op_type, "", detail)
    elif node.op_type not in {"Identity", "Cast"}:
        yield "client", Step(node.op_type, title_of(node)[0], _shape(node))


def _is_step(node: ir.Node) -> bool:
    """Whether an encrypted operator is worth a line: not offsets, and not what belongs to a table."""
    if is_dialect(node) or node.op_type == "Identity":
        return False
    offset = node.op_type in {"Add", "Sub", "Mul"} and len(variable_inputs(node)) == 1
    return node.op_type in LINEAR or not offset


def _shape(node: ir.Node) -> str:
    shape = node.outputs[0].shape
    return "" if shape is None else text.shape(tuple(d if isinstance(d, int) else d.value for d in shape))


def _zones(steps: list[tuple[str, Step]]) -> tuple[Zone, ...]:
    zones: list[tuple[str, list[Step]]] = []
    for place, step in steps:
        if not zones or zones[-1][0] != place:
            zones.append((place, []))
        zones[-1][1].append(step)
    return tuple(Zone(place, tuple(inside)) for place, inside in zones)
