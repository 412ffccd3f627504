"""Cross-layer equalization: neurons trade scale with the layers that read them, exactly in float.

Nagel et al., 2019 (arXiv 1906.04721), equation 11. It helps quantizers that have one scale for many neurons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.scaling import carried
from ...analysis.regions.linear import Linear, linear_of
from ...analysis.regions.regions import Regions
from ...ir import runtime
from ...ir.editing import GraphEditor
from ...ir.graph import constant_of, variable_inputs
from .scales import absorb, absorbers

MAX_SWEEPS = 10
"""Times that all layers are equalized, each with its neighbours."""
SETTLED_CHANGE = 1e-3
"""Largest relative change of a sweep that counts as none."""


@dataclass(frozen=True)
class Pair:
    """A layer whose neurons can be scaled, and the tensor through which others read them.

    Attributes:
        layer: Makes the neurons.
        bias: The Add that holds the bias of a MatMul, if any.
        value: What the quantizer will stand behind; its axis 1 are the neurons.
    """

    layer: ir.Node
    bias: ir.Node | None
    value: ir.Value


def equalize(model: ir.Model, regions: Regions) -> int:
    """Scale neurons so that what they read and what reads them have weights of one size.

    Args:
        model: Normalized, float; edited in place, its outputs stay but for float rounding.
        regions: Regions of the model.

    Returns:
        How many layers could be scaled.
    """
    pairs = [p for v in regions.quantized if (p := _pair(model, v, regions)) is not None]
    edit = GraphEditor(model)
    for _ in range(MAX_SWEEPS):
        worst = max((_scale(edit, p, regions) for p in pairs), default=0.0)
        if worst < SETTLED_CHANGE:
            break
    return len(pairs)


def _pair(model: ir.Model, value: ir.Value, regions: Regions) -> Pair | None:
    """The pair around a tensor; None where a scale does not come through what is between."""
    server, path = set(regions.server), list[ir.Node]()
    node = value.producer()
    while node is not None and node in server and linear_of(node) is None:
        read = variable_inputs(node)
        if len(read) != 1 or len(list(read[0].uses())) != sum(v is read[0] for v in node.inputs):
            return None
        path.insert(0, node)
        node = read[0].producer()
    linear = linear_of(node) if node is not None else None
    if node is None or linear is None or node not in server or node.outputs[0].is_graph_output():
        return None
    base = node.outputs[0]
    # A weight that several layers share could only be scaled for all of them.
    if any(len(list(v.uses())) > 1 for v in node.inputs[1:] if v is not None):
        return None
    rank = len(base.shape or [])
    if rank < 2 or linear.channel_axis % rank != 1 or list(value.shape or [0, 0])[1] != linear.channels:
        return None
    bias = path[0] if node.op_type == "MatMul" and path and _adds_constant(path[0], linear) else None
    between = path[1:] if bias is not None else path
    source = bias.outputs[0] if bias is not None else base
    if not _homogeneous(model, between, source, value, linear.channels):
        return None
    readers = absorbers(value, regions)
    if readers is None or any(len(list(r.inputs[1].uses())) > 1 for r, _ in readers if r.inputs[1]):
        return None
    return Pair(node, bias, value)


def _adds_constant(node: ir.Node, linear: Linear) -> bool:
    """Whether a node adds a bias to what a MatMul makes."""
    constants = [c for v in node.inputs if (c := constant_of(v)) is not None]
    return node.op_type == "Add" and len(constants) == 1 and constants[0].size in {1, linear.channels}


def _homogeneous(
    model: ir.Model, nodes: list[ir.Node], source: ir.Value, value: ir.Value, channels: int
) -> bool:
    """Whether a positive scale for each channel comes through (ReLU and the like): tried, not looked up."""
    if not nodes:
        return True
    random = np.random.default_rng(0)
    shape = [64, *(d if isinstance(d, int) else 1 for d in list(source.shape or [])[1:])]
    scale = random.uniform(0.25, 4, (1, channels, *[1] * (len(shape) - 2))).astype(np.float32)
    opset = model.graph.opset_imports.get("", 21)
    # Large values too: a clipped activation is linear only near 0.
    sizes = np.geomspace(1e-2, 1e3, 64).reshape([-1] + [1] * (len(shape) - 1))
    sample = (random.normal(size=shape) * sizes).astype(np.float32)
    plain, scaled = (
        runtime.run_nodes(nodes, {source: x}, [value], opset)[0] for x in (sample, sample * scale)
    )
    return plain.shape == scaled.shape and np.allclose(plain * scale, scaled, rtol=1e-4, atol=1e-6)


def _scale(edit: GraphEditor, pair: Pair, regions: Regions) -> float:
    """Equalize one pair; returns the largest relative change."""
    linear = linear_of(pair.layer)
    assert linear is not None
    made = np.abs(linear.matrix()).max(axis=1)
    read = _largest_read(pair.value, regions, linear.channels)
    usable = (made > 0) & (read > 0)
    scale = np.where(usable, np.sqrt(np.where(usable, made / np.where(read > 0, read, 1), 1.0)), 1.0)
    weight = linear.stored(linear.matrix() / scale[:, None]).astype(np.float32)
    pair.layer.replace_input_with(1, edit.constant(f"{pair.layer.name}_equalized", weight))
    for index, value in enumerate(pair.bias.inputs if pair.bias is not None else pair.layer.inputs):
        held = constant_of(value)
        if held is not None and (pair.bias is not None or index == 2):
            bias = (held.reshape(-1) / scale).astype(np.float32)
            named = edit.constant(f"{pair.layer.name}_equalized_bias", bias)
            (pair.bias or pair.layer).replace_input_with(index, named)
    absorb(edit, pair.value, regions, scale)
    return float(np.abs(scale - 1).max())


def _largest_read(value: ir.Value, regions: Regions, channels: int) -> np.ndarray:
    """The largest absolute weight that any reader has for each channel of ``value``."""
    found = np.zeros(channels)
    numbers = np.arange(1, channels + 1, dtype=np.float64)
    for reader, path in absorbers(value, regions) or []:
        linear = linear_of(reader)
        assert linear is not None
        along = numbers.reshape([1, -1] + [1] * (len(value.shape or []) - 2))
        arriving = carried(path, value, along)
        assert arriving is not None
        number = np.rint(arriving[0]).astype(int) - 1
        weight = np.abs(linear.weight.astype(np.float64))
        if reader.op_type == "Conv":
            number = number.reshape(len(number), -1)[:, 0]
            groups = np.array_split(weight.reshape(*weight.shape[:2], -1).max(axis=2), linear.groups)
            largest = np.concatenate([g.max(axis=0) for g in groups])
        else:
            largest = weight.max(axis=linear.out_axis)
        np.maximum.at(found, number.reshape(-1), largest)
    return found
