"""Where a layer can go: two linear operators that become one, and branches of a sum that are dropped."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ....analysis.regions.linear import Linear, linear_of
from ....analysis.regions.regions import JOINS
from ....ir.graph import variable_inputs
from ....ir.shapes import dims_of
from .between import Between, Curve, Stage
from .forms import Form, form_of

Key = tuple[str, str]


@dataclass(frozen=True)
class Reader:
    """A linear operator that takes the place of the removed layer and itself."""

    second: Linear
    stages: tuple[Stage, ...]
    form: Form


@dataclass(frozen=True)
class Merge:
    """A layer whose activation goes: what reads it reads its input instead.

    Attributes:
        first: The linear operator that goes.
        readers: Those that read it.
    """

    first: Linear
    readers: tuple[Reader, ...]

    @property
    def key(self) -> Key:
        """Finds the same site in a copy of the model."""
        return str(self.first.node.name), ""

    @property
    def names(self) -> set[str]:
        """Nodes by which a user may mean it: the layer, and what stands behind it."""
        curves = [s for r in self.readers for s in r.stages if isinstance(s, Curve)]
        nodes = [s for r in self.readers for s in r.stages if not isinstance(s, Curve)]
        ends = [(c.root, c.end) for c in curves]
        return {str(n.name) for n in (self.first.node, *nodes)} | {m for e in ends for m in _names(*e)}

    def __str__(self) -> str:
        into = " and ".join(str(r.second.node.name) for r in self.readers)
        return f"merged {self.first.node.name} into {into}"


@dataclass(frozen=True)
class Branch:
    """A sum of which one operand goes, with all that only it needs.

    Attributes:
        join: The Add or Sub.
        dropped: Which operand goes.
        linears: The linear operators that go with it.
    """

    join: ir.Node
    dropped: int
    linears: tuple[ir.Node, ...]

    @property
    def key(self) -> Key:
        """Finds the same site in a copy of the model."""
        return str(self.join.name), str(self.dropped)

    @property
    def kept(self) -> ir.Value:
        """The operand that stays."""
        value = self.join.inputs[1 - self.dropped]
        assert value is not None
        return value

    @property
    def names(self) -> set[str]:
        """Nodes by which a user may mean it."""
        return {str(self.join.name)}

    def __str__(self) -> str:
        return f"dropped {', '.join(str(n.name) for n in self.linears)} from {self.join.name}"


Site = Merge | Branch


def find_sites(model: ir.Model, between: Between) -> tuple[dict[Key, Site], dict[str, str]]:
    """All sites of a normalized float model by key, and the reason for each layer that has none.

    The reasons are by node name: linear operators, and sums of two tensors.
    """
    sites: dict[Key, Site] = {}
    reasons: dict[str, str] = {}
    for node in model.graph:
        linear = linear_of(node)
        if linear is not None:
            merge = _merge(linear, between)
            if isinstance(merge, str):
                reasons[str(node.name)] = merge
            else:
                sites[merge.key] = merge
        elif node.domain == "" and node.op_type in JOINS and len(variable_inputs(node)) == 2:
            found = [_branch(node, index) for index in (0, 1)]
            branches = [b for b in found if isinstance(b, Branch)]
            sites |= {b.key: b for b in branches}
            if not branches:
                reasons[str(node.name)] = str(found[0])
    return sites, reasons


def _merge(first: Linear, between: Between) -> Merge | str:
    seconds = between.readers(first.node)
    if isinstance(seconds, str):
        return seconds
    readers = []
    for second in seconds:
        x = second.node.inputs[0]
        assert x is not None
        stages = between.stages(first.node.outputs[0], x)
        if isinstance(stages, str):
            return stages
        form = form_of(first, stages, second)
        if isinstance(form, str):
            return form
        readers.append(Reader(second, tuple(stages), form))
    return Merge(first, tuple(readers))


def _branch(join: ir.Node, dropped: int) -> Branch | str:
    """The operand of a sum that can go, with what only it needs."""
    kept = join.inputs[1 - dropped]
    if dims_of(kept) is None or dims_of(kept) != dims_of(join.outputs[0]):
        return "its operands are not of the same shape"
    gone = _only_for(join, dropped)
    linears = tuple(n for n in gone if linear_of(n) is not None)
    if not linears:
        return "neither operand comes from a layer that nothing else reads"
    inside = set(gone)
    for node in gone:
        for x in variable_inputs(node):
            if x.is_graph_input() and not set(x.consumers()) - inside:
                return f"without it nothing would read the input {x.name}"
    return Branch(join, dropped, linears[::-1])


def _only_for(join: ir.Node, dropped: int) -> list[ir.Node]:
    """Nodes that nothing needs but this operand of ``join``, the last one first."""
    gone: dict[ir.Node, None] = {}
    pending = [join.inputs[dropped]]
    while pending:
        node = v.producer() if (v := pending.pop(0)) is not None else None
        if node is None or node in gone:
            continue
        if any(o.is_graph_output() for o in node.outputs):
            continue
        # The sum may read it a second time: as the operand that stays.
        uses = [u for o in node.outputs for u in o.uses()]
        if not all(u.node in gone or (u.node is join and u.idx == dropped) for u in uses):
            continue
        gone[node] = None
        pending += node.inputs
    return list(gone)


def _names(root: ir.Value, end: ir.Value) -> set[str]:
    """Nodes between two values."""
    found: set[str] = set()
    pending = [end]
    while pending:
        value = pending.pop()
        node = value.producer()
        if value is root or node is None or str(node.name) in found:
            continue
        found.add(str(node.name))
        pending += variable_inputs(node)
    return found
