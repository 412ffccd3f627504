"""What is in a model, what of it can run encrypted, and where the bootstraps will be."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from .analysis.cost.cost import CostEstimate, estimate_float
from .analysis.regions.linear import linear_of
from .analysis.regions.regions import PRODUCTS, Regions
from .analysis.regions.server import server_nodes
from .backends.reference import ReferenceBackend
from .backends.statistics import CircuitStatistics
from .findings import Finding, finding_of, nothing_encrypted, regions_of
from .ir.errors import UserError
from .ir.graph import MAXIMA, variable_inputs
from .ir.guard import FileLimits, read_model
from .ir.level import Level, level_of
from .ir.load import load
from .ir.partition import partition
from .ir.verify import verify_given
from .machine import Prediction, Profile, predict
from .manifest import Port, ports
from .passes.framework.base import Context
from .passes.framework.instruments import Verify
from .passes.framework.manager import PassManager
from .passes.import_qat.detect import is_foreign
from .rehearsal import is_quick, made_up, rehearse

BEFORE, ENCRYPTED, AFTER, CONSTANT = "client, before", "encrypted", "client, after", "constant"
"""Where a node runs, as ``inspect`` prints it."""


@dataclass(frozen=True)
class NodeInfo:
    """A node: what it is called in options and errors, the shape of its (first) output, and where it runs."""

    name: str
    operator: str
    shape: tuple[int | str | None, ...]
    where: str


@dataclass(frozen=True)
class LookupInfo:
    """A table lookup that the circuit will have.

    Attributes:
        layer: Name of the node whose accumulator it takes in.
        operator: Operator of that node.
        elements: Lookups for one sample, one bootstrap each (more with exact rounding); None if not known.
    """

    layer: str
    operator: str
    elements: int | None


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` found.

    Attributes:
        level: ``float``, ``qdq`` or ``integer``.
        parameters: Number of constant values: weights, and tables at the integer level.
        opset, operators: As in the file.
        nodes: The nodes in the form that passes see (a float model is normalized first, one that another tool
            has quantized imported).
        lookups: Where bootstraps will be; empty where the model is not supported.
        programmable_bootstraps: Their number for one sample (exact rounding adds more); None: not known.
        supported: Whether nothing was found that keeps the model from being compiled.
        findings: What keeps it from that.
        predicted: What one sample takes; for a float model if 4 bits reach every table. None: not known.
    """

    file: str
    level: str
    opset: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parameters: int
    operators: dict[str, int]
    nodes: tuple[NodeInfo, ...]
    lookups: tuple[LookupInfo, ...]
    programmable_bootstraps: int | None
    supported: bool
    findings: tuple[Finding, ...]
    predicted: Prediction | None = None


def inspect_model(
    path: str | os.PathLike[str],
    limits: FileLimits | None = None,
    bind: Mapping[str, int] | None = None,
    profile: Profile | None = None,
) -> Inspection:
    """Inspect an ONNX file of any level.

    Args:
        path: The file.
        limits: How much it may hold.
        bind: Sizes of free axes of the inputs, by name.
        profile: Profile of the machine that times are for; by default this one.

    Raises:
        ModelError: The file cannot be read.
    """
    given = load(path, limits, bind=bind)
    # As the file has it: loading brings every model to one opset.
    proto = read_model(Path(path), limits or FileLimits())
    level = level_of(given)
    model, findings, where, lookups = given, list[Finding](), dict[str, str](), list[LookupInfo]()
    # What is printed about the file as it is; its model is then normalized in place.
    inputs, outputs = ports(list(given.graph.inputs)), ports(list(given.graph.outputs))
    tensors = [v.const_value for v in given.graph.initializers.values()]
    estimate: CostEstimate | None = None
    several = False
    try:
        if level is Level.FLOAT or is_foreign(given):
            # Copies, for passes that compare, take time in large graphs. Made-up data are for inputs that
            # came without a quantizer: where its tables are does not depend on them.
            manager = PassManager.parse("normalize,import-qat")
            context = Context(source=given, calibration=made_up(given) if is_foreign(given) else None)
            model = manager.run(given, context, [Verify()], in_place=True).model
        if level_of(model) is Level.FLOAT:
            regions, findings = regions_of(model)
            where = places(model, server_nodes(model) if regions is None else regions.server)
            if regions is not None:
                lookups, estimate = _of_regions(regions), estimate_float(model, regions=regions)
                several = _takes_several(regions)
                if several:
                    lookups = [replace(x, elements=None) for x in lookups]
        elif level_of(model) is Level.QDQ:
            server = server_nodes(model)
            where, lookups = places(model, server), _of_quantizers(server)
            findings = [] if server else [nothing_encrypted()]
        else:
            verify_given(given)
            statistics = ReferenceBackend().lower(model).statistics()
            where, lookups = _of_parts(model), _of_layers(statistics)
        if not findings and level_of(model) is not Level.INTEGER and is_quick(model):
            rehearsed = rehearse(model)
            # Made-up data fills every table; where each has a quantizer, counting those is exact.
            if rehearsed is not None and (several or any(x.elements is None for x in lookups)):
                lookups = _of_layers(rehearsed)
                estimate = None if estimate is None else _with_all(estimate, lookups)
    except UserError as error:
        findings = [finding_of(error)]
        if model is given:
            model = load(path, limits, bind=bind)  # not half normalized
    counts = [x.elements for x in lookups]
    unknown = bool(findings) or any(c is None for c in counts)
    return Inspection(
        file=str(path),
        level=str(level),
        opset=next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0),
        inputs=inputs,
        outputs=outputs,
        parameters=sum(t.size for t in tensors if t is not None),
        operators=dict(Counter(_operator(n) for n in proto.graph.node).most_common()),
        nodes=tuple(
            NodeInfo(n.name or "", _operator(n), ports([n.outputs[0]])[0].shape, where.get(n.name or "", ""))
            for n in model.graph
        ),
        lookups=tuple(lookups),
        programmable_bootstraps=None if unknown else sum(c for c in counts if c is not None),
        supported=not findings,
        findings=tuple(findings),
        predicted=None if unknown or level_of(model) is Level.QDQ else predict(estimate or model, profile),
    )


def _operator(node: ir.Node | onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _with_all(estimate: CostEstimate, lookups: list[LookupInfo]) -> CostEstimate:
    """The estimate with the lookups of maxima and products too, which are of one bit more at most."""
    known = sum(x.bootstraps for x in estimate.layers)
    more = sum(x.elements or 0 for x in lookups) - known
    if more <= 0 or not estimate.layers:
        return estimate
    like = estimate.layers[0]
    added = replace(
        like, name="", bootstraps=more, lookups=more, complexity=like.complexity / like.lookups * more
    )
    return replace(estimate, layers=(*estimate.layers, added))


def places(model: ir.Model, server: list[ir.Node]) -> dict[str, str]:
    """Where each node of a float or quantized model runs, by its name, with ``server`` the encrypted ones."""
    inside, behind, constant = set(server), set[ir.Node](), set[ir.Node | None]()
    found = {}
    for node in model.graph:
        producers = {v.producer() for v in variable_inputs(node)}
        if node in inside:
            found[node.name or ""] = ENCRYPTED
        elif producers & (inside | behind):
            behind.add(node)
            found[node.name or ""] = AFTER
        elif not producers - constant and not any(v.is_graph_input() for v in variable_inputs(node)):
            constant.add(node)
            found[node.name or ""] = CONSTANT
        else:
            found[node.name or ""] = BEFORE
    return found


def _of_parts(model: ir.Model) -> dict[str, str]:
    parts = partition(model)
    before = {n.name or "": BEFORE for n in parts.prologue.graph}
    after = {n.name or "": AFTER for n in parts.epilogue.graph}
    return before | after | {n.name or "": ENCRYPTED for n in parts.server.graph}


def _of_regions(regions: Regions) -> list[LookupInfo]:
    found = []
    for value in regions.quantized:
        node = _layer_of(value, regions)
        if node is not None:
            found.append(LookupInfo(node.name or "", node.op_type, _elements(value)))
    return found


def _takes_several(regions: Regions) -> bool:
    """Whether there are maxima, products or functions of a pair: they take lookups behind no quantizer."""
    return bool(regions.operands or regions.paired or regions.settling) or any(
        n.op_type in MAXIMA or (n.op_type in PRODUCTS and len(variable_inputs(n)) > 1) for n in regions.server
    )


def _layer_of(value: ir.Value, regions: Regions) -> ir.Node | None:
    """The node whose accumulator a quantized tensor is a function of, or the first one behind an input."""
    behind: ir.Node | None = None
    while True:
        node = value.producer()
        if node is None:
            return behind
        behind = node
        bases = {regions.tensors[v].base for v in variable_inputs(node) if v in regions.tensors}
        if linear_of(node) is not None or len(bases) != 1:
            return node
        (value,) = bases


def _of_quantizers(server: list[ir.Node]) -> list[LookupInfo]:
    found = []
    for node in server:
        if node.op_type == "QuantizeLinear":
            layer = node
            while linear_of(layer) is None and len(variable := variable_inputs(layer)) == 1:
                layer = variable[0].producer() or layer
            found.append(LookupInfo(layer.name or "", layer.op_type, _elements(node.outputs[0])))
    return found


def _of_layers(statistics: CircuitStatistics) -> list[LookupInfo]:
    return [
        LookupInfo(x.name, x.operator, x.programmable_bootstraps)
        for x in statistics.layers
        if x.programmable_bootstraps
    ]


def _elements(value: ir.Value) -> int | None:
    if value.shape is None:
        return None
    count = 1
    for size in value.shape.dims[1:]:
        if not isinstance(size, int):
            return None
        count *= size
    return count
