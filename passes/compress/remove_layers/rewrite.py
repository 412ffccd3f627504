"""Taking a layer out of the graph; what stays in its place starts where ``start`` says and is fitted then."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....analysis.regions.linear import Linear, linear_of
from ....ir.editing import GraphEditor, set_attributes
from ....ir.graph import layer_of, only_consumer, variable_inputs
from ....ir.shapes import BATCH, dims_of
from .reference import Reference, line
from .sites import Branch, Merge, Reader, Site
from .start import start_of

Targets = dict[str, np.ndarray | None]
"""What is to be fitted, by the name of the linear node, and what it should produce; None stands for what the
float model has under the name of its output."""


def remove(model: ir.Model, site: Site, reference: Reference) -> Targets:
    """Take the layer of a site out of ``model``, in place; returns what is to be fitted then."""
    targets = (
        _merge(model, site, reference)
        if isinstance(site, Merge)
        else _drop(GraphEditor(model), site, reference)
    )
    RemoveUnusedNodesPass()(model)
    return targets


def _merge(model: ir.Model, site: Merge, reference: Reference) -> Targets:
    opset = model.graph.opset_imports.get("", 21)
    # All starts first: a reader that has been rewritten no longer tells what stood before it.
    starts = [start_of(site.first, reader, reference, opset) for reader in site.readers]
    edit = GraphEditor(model)
    for reader, weight in zip(site.readers, starts, strict=True):
        _rewire(edit, reader, weight)
    return {str(r.second.node.name): None for r in site.readers}


def _rewire(edit: GraphEditor, reader: Reader, weight: np.ndarray) -> None:
    node, form = reader.second.node, reader.form
    x = form.x
    if form.flat:
        x = edit.at(node).add("Flatten", [x], f"{node.name}_flat", {"axis": 1})
        x.type = form.x.type
        size = math.prod(d for d in dims_of(form.x) or [] if isinstance(d, int))
        x.shape = ir.Shape([ir.SymbolicDim(BATCH), size])
    node.replace_input_with(0, x)
    edit.set_constant(node, 1, weight.astype(reader.second.weight.dtype), f"{node.name}_merged")
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


def _drop(edit: GraphEditor, site: Branch, reference: Reference) -> Targets:
    join, kept = site.join, site.kept
    name = str(join.outputs[0].name)
    reference.need([kept, join.outputs[0]])
    wanted, found = reference[join.outputs[0]], reference[kept]
    projection = _projection(kept, join)
    if projection is not None:
        produced = projection.node.outputs[0]
        # What it should produce, less the bias that stands behind a MatMul.
        target = None if produced is kept else wanted - (found - reference[produced])
        edit.bypass(join, kept)
        # What is left is what the sum was to all that reads it: other removals look it up by name.
        kept.name = name
        return {str(projection.node.name): target}
    slope, offset = line(found, wanted, (_channel_axis(kept, found.ndim),))
    dtype = found.dtype
    scaled = edit.at(join).add(
        "Mul",
        [kept, edit.constant(f"{join.name}_scale", slope.astype(dtype))],
        f"{join.name}_scaled",
        like=join.outputs[0],
    )
    shift = edit.constant(f"{join.name}_offset", offset.astype(dtype))
    edit.substitute(join, "Add", [scaled, shift])
    return {}


def _channel_axis(value: ir.Value, rank: int) -> int:
    """The axis of neurons or channels: that of the linear operator that a value comes from, else axis 1."""
    node = layer_of(value)
    while node is not None and (linear := linear_of(node)) is None:
        node = layer_of(variable_inputs(node)[0])
    return linear.channel_axis % rank if node is not None and linear is not None else 1


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
