"""Raw outputs: the range that a Decrypt declares, and offsets that the client takes off again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.ranges import SoundRanges
from ...analysis.ranges.tails import Interval
from ...ir.graph import is_dialect
from ...ir.integer_editing import IntegerEditor


def declare_range(decrypt: ir.Node, low: float, high: float) -> None:
    """Let a Decrypt declare that its input stays in [low, high]."""
    decrypt.attributes["low"] = ir.AttrInt64("low", int(np.floor(low)))
    decrypt.attributes["high"] = ir.AttrInt64("high", int(np.ceil(high)))


def declare_soundly(model: ir.Model) -> None:
    """Give every Decrypt the range that its integers provably stay in."""
    ranges = SoundRanges(model)
    for node in model.graph:
        if is_dialect(node, "Decrypt"):
            low, high = ranges.of(node.inputs[0])  # type: ignore[arg-type]
            declare_range(node, float(low.min()), float(high.max()))


def restore(edit: IntegerEditor, decrypt: ir.Node, amount: np.ndarray) -> ir.Value:
    """Add ``amount`` behind a Decrypt, on the client, for all that reads it; returns the new value."""
    model, output = edit.model, decrypt.outputs[0]
    readers = list(output.uses())
    restored = edit.behind(output).shifted(output, amount, f"{decrypt.name}_restored")
    for use in readers:
        use.node.replace_input_with(use.idx, restored)
    for index, graph_output in enumerate(model.graph.outputs):
        if graph_output is output and restored is not output:
            output.name, restored.name = f"{output.name}_raw", output.name
            model.graph.outputs[index] = restored
    return restored


def declare_output(
    edit: IntegerEditor, decrypt: ir.Node, bounds: Interval, free: Interval | None = None
) -> None:
    """Declare the range of a raw output, shifted by channel to start at 0 where that saves a bit.

    A signed range takes the bits of its larger side twice; shifted, it takes those of its width, and
    channels with different centres come to lie on each other.

    Args:
        edit: Inserts nodes.
        decrypt: The node.
        bounds: Of what it reads.
        free: Declare all that the bits of the range can hold, but no more than these bounds.
    """
    source = decrypt.inputs[0]
    assert source is not None
    low, high = np.floor(bounds[0]), np.ceil(bounds[1])
    gone = tuple(i for i in range(low.ndim) if i != 1)
    low, high = low.min(axis=gone, keepdims=True), high.max(axis=gone, keepdims=True)
    narrow = _bits(0, float((high - low).max()))
    if narrow < _bits(float(low.min()), float(high.max())):
        if free is not None:  # each channel in the middle of what its bits can hold
            low = low - np.floor((2**narrow - 1 - (high - low)) / 2)
            free = free[0] - low, free[1] - low
        edit.at(decrypt)
        decrypt.replace_input_with(0, edit.shifted(source, -low, f"{decrypt.name}_offset"))
        restore(edit, decrypt, low)
        low, high = np.zeros_like(low), high - low
    least, most = float(low.min()), float(high.max())
    if free is not None:
        bits = _bits(least, most)
        ends = (0, 2**bits - 1) if least >= 0 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        least = 0.0 if least >= 0 else min(least, max(ends[0], float(free[0].min())))
        most = max(most, min(ends[1], float(free[1].max())))
    declare_range(decrypt, least, most)


def _bits(low: float, high: float) -> int:
    """Bits that Concrete takes for a range: two's complement where it is signed."""
    if low >= 0:
        return int(high).bit_length()
    return 1 + max(int(max(high, 0)).bit_length(), (-int(low) - 1).bit_length())
