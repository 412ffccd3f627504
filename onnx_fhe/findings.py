"""What keeps a model from being compiled: everything that is in the way, each node once."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from .analysis.regions.region_analysis import find_regions
from .analysis.regions.regions import Regions
from .ir.errors import ModelError, UnsupportedError, UserError

MAX_FINDINGS = 20
"""Findings about one model: past that, the first ones tell what is wrong."""


@dataclass(frozen=True)
class Finding:
    """Something that keeps the model from being compiled: where, why, and what to do."""

    what: str
    node: str
    operator: str
    found: str
    allowed: str
    do: str


def finding_of(error: UserError) -> Finding:
    """The finding that an error is."""
    return Finding(error.what, error.where.node, error.where.op, error.found, error.allowed, error.do)


def nothing_encrypted() -> Finding:
    """The finding for a quantized model without an encrypted operator."""
    return finding_of(
        ModelError(
            "there is nothing to run encrypted in this model",
            allowed="at least one Gemm, MatMul or Conv with quantized weights that depends on an input",
        )
    )


def regions_of(model: ir.Model) -> tuple[Regions | None, list[Finding]]:
    """The encrypted part, or all that keeps there from being one.

    The analysis stops at the first operator that it cannot take; to find more, the model is cut behind it.
    """
    probe, found = model, list[Finding]()
    while len(found) < MAX_FINDINGS:
        try:
            regions = find_regions(probe, cut=bool(found))
        except UnsupportedError as error:
            probe = model.clone() if probe is model else probe
            node = next((n for n in probe.graph if n.name == error.where.node), None)
            if node is None or any(f.node == node.name for f in found):
                # Nothing linear is left behind the cuts: no finding of its own.
                found += [] if found else [finding_of(error)]
                break
            found.append(finding_of(error))
            _cut(probe, node)
        else:
            # A model that was cut tells nothing more.
            return (None, found) if found else (regions, found)
    return None, found


def _cut(model: ir.Model, node: ir.Node) -> None:
    for value in node.outputs:
        fresh = ir.Value(name=f"{value.name}/cut", type=value.type, shape=value.shape)
        model.graph.inputs.append(fresh)
        for user, index in list(value.uses()):
            user.replace_input_with(index, fresh)
        if value.is_graph_output():
            for index, output in enumerate(model.graph.outputs):
                if output is value:
                    model.graph.outputs[index] = fresh
    model.graph.remove(node, safe=True)
