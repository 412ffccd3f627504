"""What is in a model, what of it can run encrypted, and where the bootstraps will be."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import onnx_ir as ir

from .analysis.cost.cost import CostEstimate, estimate_float
from .analysis.regions.server import server_nodes
from .backends.reference import ReferenceBackend
from .findings import Finding, finding_of, nothing_encrypted, regions_of
from .ir.errors import UserError
from .ir.guard import FileLimits, read_model
from .ir.level import Level, level_of
from .ir.load import load
from .ir.verify import verify_given
from .lookups import LookupInfo, lookups_of_layers, lookups_of_quantizers, lookups_of_regions, takes_several
from .machine import Prediction, Profile, predict
from .manifest import ports
from .passes.framework.base import Context
from .passes.framework.instruments import Verify
from .passes.framework.manager import PassManager
from .passes.import_qat.detect import is_foreign
from .places import places, places_of_parts
from .ports import Port
from .rehearsal import is_quick, made_up, rehearse


@dataclass(frozen=True)
class NodeInfo:
    """A node: what it is called in options and errors, the shape of its (first) output, and where it runs."""

    name: str
    operator: str
    shape: tuple[int | str | None, ...]
    where: str


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
    # What is printed about the file as it is; its model is then normalized in place.
    inputs, outputs = ports(list(given.graph.inputs)), ports(list(given.graph.outputs))
    tensors = [v.const_value for v in given.graph.initializers.values()]
    known = _Known(given)
    try:
        known.look()
        known.rehearse()
    except UserError as error:
        known.findings = [finding_of(error)]
        if known.model is given:
            known.model = load(path, limits, bind=bind)  # not half normalized
    model, counts = known.model, [x.elements for x in known.lookups]
    unknown = bool(known.findings) or any(c is None for c in counts)
    return Inspection(
        file=str(path),
        level=str(level),
        opset=next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0),
        inputs=inputs,
        outputs=outputs,
        parameters=sum(t.size for t in tensors if t is not None),
        operators=dict(Counter(_operator(n) for n in proto.graph.node).most_common()),
        nodes=tuple(
            NodeInfo(
                n.name or "", _operator(n), ports([n.outputs[0]])[0].shape, known.where.get(n.name or "", "")
            )
            for n in model.graph
        ),
        lookups=tuple(known.lookups),
        programmable_bootstraps=None if unknown else sum(c for c in counts if c is not None),
        supported=not known.findings,
        findings=tuple(known.findings),
        predicted=None
        if unknown or level_of(model) is Level.QDQ
        else predict(known.estimate or model, profile),
    )


@dataclass
class _Known:
    """What is known of a model so far; an error on the way leaves what was found until then.

    Attributes:
        model: As it was read, then in its normal form.
        findings: What keeps it from being compiled.
        where: By the name of each node the part that it belongs to.
        lookups: Its tables.
        estimate: What it costs, where that is not counted on the model itself.
        takes_several: Whether some operators take several lookups for each element.
    """

    model: ir.Model
    findings: list[Finding] = field(default_factory=list)
    where: dict[str, str] = field(default_factory=dict)
    lookups: list[LookupInfo] = field(default_factory=list)
    estimate: CostEstimate | None = None
    takes_several: bool = False

    def look(self) -> None:
        """Find its parts and tables, by its level.

        Raises:
            UserError: Something keeps it from being compiled.
        """
        given = self.model
        if level_of(given) is Level.FLOAT or is_foreign(given):
            # Copies, for passes that compare, take time in large graphs. Made-up data are for inputs that
            # came without a quantizer: where its tables are does not depend on them.
            manager = PassManager.parse("normalize,import-qat")
            context = Context(source=given, calibration=made_up(given) if is_foreign(given) else None)
            self.model = manager.run(given, context, [Verify()], in_place=True).model
        if level_of(self.model) is Level.FLOAT:
            self._look_at_floats()
        elif level_of(self.model) is Level.QDQ:
            server = server_nodes(self.model)
            self.where, self.lookups = places(self.model, server), lookups_of_quantizers(server)
            self.findings = [] if server else [nothing_encrypted()]
        else:
            verify_given(given)
            statistics = ReferenceBackend().lower(self.model).statistics()
            self.where, self.lookups = places_of_parts(self.model), lookups_of_layers(statistics)

    def _look_at_floats(self) -> None:
        regions, self.findings = regions_of(self.model)
        self.where = places(self.model, server_nodes(self.model) if regions is None else regions.server)
        if regions is None:
            return
        self.lookups, self.estimate = lookups_of_regions(regions), estimate_float(self.model, regions=regions)
        self.takes_several = takes_several(regions)
        if self.takes_several:
            self.lookups = [replace(x, elements=None) for x in self.lookups]

    def rehearse(self) -> None:
        """Count the tables of a quick integer model of made-up data, where they cannot be counted without."""
        if self.findings or level_of(self.model) is Level.INTEGER or not is_quick(self.model):
            return
        rehearsed = rehearse(self.model)
        # Made-up data fills every table; where each has a quantizer, counting those is exact.
        unclear = self.takes_several or any(x.elements is None for x in self.lookups)
        if rehearsed is not None and unclear:
            self.lookups = lookups_of_layers(rehearsed)
            self.estimate = None if self.estimate is None else _with_all(self.estimate, self.lookups)


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
