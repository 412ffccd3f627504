"""Raw outputs: the range that a Decrypt declares, and offsets that the client takes off again.

A Decrypt is made with the range that provably holds. What passes find out afterwards they declare here, and
nowhere else: ``fuse-tlu`` what was observed, ``insert-rounding`` and ``refine-tables`` what they changed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir.bits import bits_of
from ...ir.integer_editing import IntegerEditor
from ...ir.interval_arithmetic import Interval
from ...ir.ops import Decrypt, RoundBits


def read_shifted(
    edit: IntegerEditor,
    decrypt: Decrypt,
    offset: np.ndarray,
    bounds: tuple[float, float],
    *,
    part: str = "offset",
    lsbs_to_remove: int = 0,
) -> list[ir.Value]:
    """Let a Decrypt read its accumulator plus an offset, and declare what that is within.

    Args:
        edit: Inserts the nodes at its place.
        decrypt: What reads it.
        offset: Broadcasts to the accumulator; nothing is added where it is 0 everywhere.
        bounds: Smallest and largest value that is read.
        part: What the addition is named after, behind the name of the Decrypt.
        lsbs_to_remove: Bits that an approximate rounding takes off, which are not decrypted.

    Returns:
        The values on the way, the accumulator itself where it is one of them; the Decrypt reads the last.
    """
    source = decrypt.input
    made = [edit.shifted(source, offset, f"{decrypt.name}_{part}")]
    if lsbs_to_remove:
        rounding = RoundBits.make(made[0], lsbs_to_remove=lsbs_to_remove, mode="approximate")
        made.append(edit.insert(rounding, f"{decrypt.name}_round", source))
    decrypt.node.replace_input_with(0, made[-1])
    decrypt.declare(*bounds)
    return made


def widen(decrypt: Decrypt, low: float, high: float) -> bool:
    """Let the declared range hold ``[low, high]`` too, where it takes no more bits then; else False.

    A range of 0 alone takes no bits, and does not grow.
    """
    wider = min(decrypt.low, int(low)), max(decrypt.high, int(high))
    if bits_of(*wider, least=0) > bits_of(*decrypt.range, least=0):
        return False
    decrypt.declare(*wider)
    return True


def restore(edit: IntegerEditor, decrypt: Decrypt, amount: np.ndarray) -> ir.Value:
    """Add ``amount`` behind a Decrypt, on the client, for all that reads it; returns the new value."""
    model, output = edit.model, decrypt.output
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
    edit: IntegerEditor, decrypt: Decrypt, bounds: Interval, free: Interval | None = None
) -> None:
    """Declare the range of a raw output, shifted by channel to start at 0 where that saves a bit.

    A signed range takes the bits of its larger side twice; shifted, it takes those of its width, and
    channels with different centres come to lie on each other.

    Args:
        edit: Inserts nodes.
        decrypt: What declares it.
        bounds: Bounds of what it reads.
        free: Declare all that the bits of the range can hold, but no more than these bounds.
    """
    low, high = np.floor(bounds[0]), np.ceil(bounds[1])
    gone = tuple(i for i in range(low.ndim) if i != 1)
    low, high = low.min(axis=gone, keepdims=True), high.max(axis=gone, keepdims=True)
    start = np.zeros_like(low)
    # A channel that never varies takes no bits once it is shifted to 0.
    narrow = bits_of(0, float((high - low).max()), least=0)
    if narrow < bits_of(float(low.min()), float(high.max()), least=0):
        if free is not None:  # each channel in the middle of what its bits can hold
            low = low - np.floor((2**narrow - 1 - (high - low)) / 2)
            free = free[0] - low, free[1] - low
        start, low, high = low, np.zeros_like(low), high - low
    least, most = float(low.min()), float(high.max())
    if free is not None:
        bits = bits_of(least, most, least=0)
        ends = (0, 2**bits - 1) if least >= 0 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        least = 0.0 if least >= 0 else min(least, max(ends[0], float(free[0].min())))
        most = max(most, min(ends[1], float(free[1].max())))
    read_shifted(edit.at(decrypt.node), decrypt, -start, (least, most))
    if start.any():
        restore(edit, decrypt, start)
