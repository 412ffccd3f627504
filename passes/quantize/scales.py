"""Where scales go: absorbed by the next layer's weights, or made commensurate where tensors are added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.scaling import carried
from ...analysis.regions.linear import Linear, linear_of
from ...analysis.regions.regions import Regions
from ...ir.editing import GraphEditor
from ...ir.graph import MAXIMA
from ...ir.movement import CANDIDATES
from .weights import candidate_scales

PASSED = CANDIDATES | {"GlobalAveragePool", "AveragePool"} | (MAXIMA - {"Max", "Min"})
"""Operators that a scale per channel goes through."""


def absorbers(
    value: ir.Value, regions: Regions, direct: bool = False, shape: Sequence[int] | None = None
) -> list[tuple[ir.Node, list[ir.Node]]] | None:
    """The linear layers that read ``value``, each with the layout operators between.

    None where something else reads it too, so that a scale per channel cannot vanish in weights; so does a
    quantizer on the way, which is fitted to the values without scales.

    Args:
        value: The tensor that is quantized.
        regions: The encrypted nodes, and which tensors are quantized.
        direct: Only linear layers that read ``value`` itself get it quantized (it is an accumulator).
        shape: Shape of the scales, broadcastable with one sample of ``value``; by default a scale for each
            channel.
    """
    server, quantized = set(regions.server), set(regions.quantized)
    found: list[tuple[ir.Node, list[ir.Node]]] = []
    pending: list[tuple[ir.Value, list[ir.Node]]] = [(value, [])]
    while pending:
        current, path = pending.pop()
        if (current.is_graph_output() and not direct) or (path and current in quantized):
            return None
        for use in {u.node: u for u in current.uses()}.values():
            reader = use.node
            if linear_of(reader) is not None and use.idx == 0 and reader in server:
                if not _can_absorb(reader, value, path, shape):
                    return None
                found.append((reader, path))
            elif direct:
                continue
            elif reader in server and reader.op_type in PASSED:
                pending.append((reader.outputs[0], [*path, reader]))
            else:
                return None
    return found or None


def _can_absorb(
    reader: ir.Node, value: ir.Value, path: list[ir.Node], shape: Sequence[int] | None = None
) -> bool:
    """Whether the weights of ``reader`` meet one scale each."""
    data = reader.inputs[0]
    if value.shape is None or len(value.shape) < 2 or data is None or data.shape is None:
        return False
    if shape is None:
        if reader.op_type == "MatMul" and len(data.shape) != 2:
            return False
        if not path:
            return True
        shape = channels_of(value)
    size = int(np.prod([d for d in shape if d > 0]))
    found = carried(path, value, np.random.default_rng(0).uniform(1, 2, size).reshape(shape))
    if found is None or reader.op_type == "Gemm":
        return found is not None
    # A weight of a convolution meets all positions of a channel, one of a matrix product all rows: they must
    # still have one scale.
    axis = 1 if reader.op_type == "Conv" else found.ndim - 1
    entries = np.moveaxis(found, axis, 0).reshape(found.shape[axis], -1)
    return bool(np.allclose(entries, entries[:, :1], rtol=1e-5, atol=0))


def _along_channels(value: ir.Value) -> list[int]:
    return [1, -1] + [1] * (len(value.shape or []) - 2)


def channels_of(value: ir.Value) -> list[int]:
    """The shape of scales for each channel: those of axis 1."""
    dims = list(value.shape or [])
    return [1, int(dims[1]), *[1] * (len(dims) - 2)]  # type: ignore[arg-type]


def features_of(value: ir.Value, regions: Regions) -> list[int] | None:
    """The finest scales of ``value`` that the weights behind it take: their shape, None where they take none.

    For each element, for each entry of the last axis (behind which a matrix product stands), or for each
    channel (a convolution).
    """
    dims = [d if isinstance(d, int) else 0 for d in list(value.shape or [])]
    if len(dims) < 2:
        return None
    last = [*[1] * (len(dims) - 1), dims[-1]]
    for shape in ([1, *dims[1:]], last, [1, dims[1], *[1] * (len(dims) - 2)]):
        if all(shape) and absorbers(value, regions, shape=shape):
            return shape
    return None


def absorb(
    edit: GraphEditor,
    value: ir.Value,
    regions: Regions,
    scale: np.ndarray,
    direct: bool = False,
    shape: Sequence[int] | None = None,
) -> None:
    """Multiply the weights of every reader by the scale of the input that each weight meets.

    Args:
        edit: The editor of the model.
        value: The tensor that gets several scales.
        regions: Regions of the model.
        scale: (channels), or as many as ``shape`` has elements.
        direct, shape: As for ``absorbers``.
    """
    for reader, path in absorbers(value, regions, direct, shape) or []:
        linear = linear_of(reader)
        assert linear is not None
        # A weight that meets nothing but the zeros of a Pad would be large beside those that were scaled.
        nothing = 0.0 if linear.node.op_type == "Gemm" else 1.0
        arriving = carried(path, value, scale.reshape(shape or _along_channels(value)), nothing)
        assert arriving is not None
        _scale_weight(edit, linear, arriving)


def _scale_weight(edit: GraphEditor, linear: Linear, scale: np.ndarray) -> None:
    weight = linear.weight.astype(np.float64)
    if linear.node.op_type == "Gemm":
        scaled = weight * scale.reshape(1, -1)
    elif linear.node.op_type == "MatMul":
        scaled = weight * scale.reshape(-1, len(weight))[0][:, None]
    else:
        channels = scale[0].reshape(scale.shape[1], -1)[:, 0]
        groups = channels.reshape(linear.groups, -1)
        per_row = np.repeat(groups, len(weight) // linear.groups, axis=0)
        scaled = weight * per_row.reshape(*per_row.shape, *[1] * (weight.ndim - 2))
    new = edit.constant(f"{linear.node.name}_absorbed", scaled.astype(np.float32))
    linear.node.replace_input_with(1, new)


def commensurate(weights: np.ndarray, bits: int, unit: np.ndarray) -> np.ndarray:
    """Weight scales whose accumulator adds to another tensor without a multiplier that is no integer.

    Args:
        weights: (out, in).
        bits: Width of the weights.
        unit: The other tensor's scale over this layer's input scale: () or (out).

    Returns:
        (candidates, out): ``unit`` times or divided by a small integer.
    """
    whole = candidate_scales(weights, bits, "min-max")[0]
    unit = np.broadcast_to(np.abs(unit), whole.shape)
    whole = np.where(whole > 0, whole, unit)  # a channel without weights takes the other tensor's steps
    # The divisor that comes nearest to the natural scale of each channel, and those around it: finer and
    # coarser.
    natural = unit / whole
    tried = []
    for factor in (0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0):
        wanted = natural * factor
        divided = unit / np.maximum(1, np.rint(wanted))
        multiplied = unit * np.maximum(1, np.rint(1 / wanted))
        tried.append(np.where(wanted >= 1, divided, multiplied))
    return np.stack(tried)
