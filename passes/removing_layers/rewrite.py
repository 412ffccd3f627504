"""Taking a layer out of the graph; what stays in its place starts where ``start`` says and is fitted then."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir.graph import variable_inputs
from ..analysis.linear import Linear, linear_of
from ..normalizing.edit import (
    bypass,
    constant,
    insert,
    only_consumer,
    set_attributes,
    set_constant,
    substitute,
)
from ..normalizing.shapes import BATCH, dims_of
from .reference import Reference, line
from .sites import Branch, Merge, Reader, Site
from .start import start_of


@dataclass
class Fitting:
    """What is to be fitted, by the name of the linear node.

    Attributes:
        targets: What it should produce; where nothing is said, what it produces in the float model.
    """

    targets: dict[str, np.ndarray | None] = field(default_factory=dict)


def remove(model: ir.Model, site: Site, reference: Reference) -> Fitting:
    """Take the layer of a site out of ``model``, in place."""
    fitting = _merge(model, site, reference) if isinstance(site, Merge) else _drop(model, site, reference)
    RemoveUnusedNodesPass()(model)
    return fitting


def _merge(model: ir.Model, site: Merge, reference: Reference) -> Fitting:
    opset = model.graph.opset_imports.get("", 21)
    # All starts first: a reader that has been rewritten no longer tells what stood before it.
    starts = [start_of(site.first, reader, reference, opset) for reader in site.readers]
    for reader, weight in zip(site.readers, starts, strict=True):
        _rewire(model.graph, reader, weight)
    return Fitting({str(r.second.node.name): None for r in site.readers})


def _rewire(graph: ir.Graph, reader: Reader, weight: np.ndarray) -> None:
    node, form = reader.second.node, reader.form
    x = form.x
    if form.flat:
        x = insert(node, "Flatten", [x], f"{node.name}_flat", {"axis": 1})
        x.type = form.x.type
        size = math.prod(d for d in dims_of(form.x) or [] if isinstance(d, int))
        x.shape = ir.Shape([ir.SymbolicDim(BATCH), size])
    node.replace_input_with(0, x)
    set_constant(graph, node, 1, weight.astype(reader.second.weight.dtype), f"{node.name}_merged")
    if form.window is not None:
        window = form.window.attributes
        set_attributes(
            node,
            {
                "dilations": window["dilations"],
                "group": form.groups,
                "kernel_shape": window["kernel_shape"],
                "pads": window["pads"],
                "strides": window["strides"],
            },
        )


def _drop(model: ir.Model, site: Branch, reference: Reference) -> Fitting:
    join, kept = site.join, site.kept
    reference.need([kept, join.outputs[0]])
    wanted, found = reference[join.outputs[0]], reference[kept]
    projection = _projection(kept, join)
    if projection is not None and bypass(join, kept):
        produced = projection.node.outputs[0]
        # What it should produce, less the bias that stands behind a MatMul.
        bias = 0 if produced is kept else found - reference[produced]
        return Fitting({str(projection.node.name): wanted - bias})
    rank = found.ndim
    axis = 1 if rank != 3 else 2
    slope, offset = line(found, wanted, (axis,))
    dtype = found.dtype
    scaled = insert(
        join,
        "Mul",
        [kept, constant(model.graph, slope.astype(dtype), f"{join.name}_scale")],
        f"{join.name}_scaled",
        like=join.outputs[0],
    )
    shift = constant(model.graph, offset.astype(dtype), f"{join.name}_offset")
    substitute(join, "Add", [scaled, shift])
    return Fitting()


def _projection(kept: ir.Value, join: ir.Node) -> Linear | None:
    """The linear operator that alone makes the operand that stays (a bias may stand behind it)."""
    reader = join
    while True:
        node = kept.producer()
        if node is None or only_consumer(kept) is not reader:
            return None
        linear = linear_of(node)
        if linear is not None:
            return linear
        variable = variable_inputs(node)
        if node.op_type != "Add" or len(variable) != 1 or linear_of(variable[0].producer() or node) is None:
            return None
        kept, reader = variable[0], node
