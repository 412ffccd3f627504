"""Recording the network as imported, while the passes run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

import onnx_ir as ir
from onnx_ir.passes import PassBase
from typing_extensions import override

from ..analysis.regions.server import server_nodes
from ..ir.errors import OnnxFheError
from ..ir.graph import constant_of, variable_inputs
from ..ir.level import Level, level_of
from ..manifest import ports
from ..passes.framework.instruments import Instrument
from ..passes.framework.pipeline import pass_name
from ..places import places
from ..record import MAX_RECORDED_NODES, Measurements, NodeRecord, Record

IMPORTING = ("normalize", "import-qat")
"""Passes that bring a network to the form that the others know, as the same network."""


class Recorder(Instrument):
    """Watches a pipeline and keeps what the network was when it had been imported.

    Attributes:
        nodes: The network as ``normalize`` and ``import-qat`` left it; as given where neither runs.
        left_out: Nodes that are past ``MAX_RECORDED_NODES``.
        operators, parameters: How many the model has as given.
    """

    def __init__(self) -> None:
        self.nodes: tuple[NodeRecord, ...] = ()
        self.left_out = 0
        self.operators: dict[str, int] = {}
        self.parameters = 0

    @override
    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        self.operators = dict(Counter(_operator(n) for n in model.graph).most_common())
        self.parameters = sum(_size(v) for v in model.graph.initializers.values())
        if not any(pass_name(p) in IMPORTING for p in passes):
            self._keep(model)

    @override
    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:
        if pass_name(pass_) in IMPORTING and (modified or not self.nodes):
            self._keep(model)

    def record(self, measured: Measurements | None, bind: Mapping[str, int]) -> Record:
        """All of it, with what was measured."""
        return Record(self.nodes, self.left_out, self.operators, self.parameters, measured, dict(bind))

    def _keep(self, model: ir.Model) -> None:
        nodes = list(model.graph)
        # At the integer level the artifact holds the model itself.
        kept = [] if level_of(model) is Level.INTEGER else nodes[:MAX_RECORDED_NODES]
        where: dict[str, str] = {}
        # What cannot run encrypted is refused by a pass, which knows more about it.
        with suppress(OnnxFheError):
            where = places(model, server_nodes(model)) if kept else {}
        self.nodes = tuple(_node(n, where.get(n.name or "", "")) for n in kept)
        self.left_out = len(nodes) - len(kept) if kept else 0


def _node(node: ir.Node, where: str) -> NodeRecord:
    read = [(v, v.producer()) for v in variable_inputs(node)]
    return NodeRecord(
        name=node.name or "",
        operator=_operator(node),
        shape=ports([node.outputs[0]])[0].shape if node.outputs else (),
        inputs=tuple(str(p.name if p is not None else v.name) for v, p in read),
        parameters=sum(_size(v) for v in node.inputs if v is not None and constant_of(v) is not None),
        where=where,
    )


def _operator(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _size(value: ir.Value) -> int:
    return int(value.const_value.size) if value.const_value is not None else 0
