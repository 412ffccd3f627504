"""Whole-number gains that make every channel use the whole range of the accumulator (LOWERING, step 3).

The lattice that rounding leaves is fixed relative to the range of L bits, so a channel that uses half of the
range sees half of the lattice. Multiplying the channel costs nothing by itself, but the noise of the
ciphertexts grows with it: what counts is the 2-norm of the integer weights behind a lookup (not L: the noise
of a bootstrap is a share of the whole range). Weights on fresh encryptions have room to spare.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import linear_of
from ....ir import intervals
from ....ir.graph import variable_inputs
from ....ir.integer_editing import IntegerEditor
from ....ir.interval_arithmetic import Bounds
from .lattice import Width

MAX_EXTRA_BITS = 4
"""Bits that the accumulator may grow by, so that whole-number gains come in fine steps (approximate rounding
costs the same at any width)."""
MAX_FILLED_BITS = 20
"""Widest accumulator that a gain may lead to."""
CHEAP_NORM = 64.0
"""Largest 2-norm of the weights at which the bootstraps in front of them stay at their cheapest, if the table
behind takes 4 bits. Past it they take one decomposition level more (a fifth more time) and then cost the same
for a factor of 16 and more (measured with Concrete's optimizer for 3 to 6 bits)."""
CHEAP_NORM_FALL = 3.2
"""What each bit more of the table divides ``CHEAP_NORM`` by (measured so, too)."""

Fill = Literal["none", "free", "full"]


def fill_range(
    source: ir.Value, spans: np.ndarray, width: Width, fill: Fill, room: float
) -> tuple[Width, np.ndarray]:
    """Choose a wider accumulator and a gain for each channel.

    Args:
        source: The accumulator in front of the rounding.
        spans: Largest minus smallest value of each channel.
        width: The width without gains.
        fill: ``full`` fills the range of every channel; ``free`` only as far as no bootstrap costs
            more by that.
        room: Largest gain that leaves the integers exact in float32 (``exact_room``).

    Returns:
        The new width, and gains (channels), at least 1 each.
    """
    spans = np.maximum(spans, 1)
    if fill == "none":
        return width, np.ones(len(spans), int)
    bound = np.full(len(spans), np.inf)
    if fill == "free" and not is_fresh(source):
        norms = weight_norms(source, len(spans))
        cheap = CHEAP_NORM / CHEAP_NORM_FALL ** (width.bits - width.removed - 4)
        if norms.max() <= cheap:
            bound = cheap / np.maximum(norms, 1e-9)
    return gains_within(spans, width, np.minimum(bound, room))


def gains_within(spans: np.ndarray, width: Width, bound: np.ndarray) -> tuple[Width, np.ndarray]:
    """The width, and whole gains of at most ``bound`` (channels), with which the channels see most steps."""
    best = width, np.ones(len(spans), int)
    usage = _usage(spans, *best)
    for extra in range(1, min(MAX_EXTRA_BITS, MAX_FILLED_BITS - width.bits) + 1):
        wider = Width(width.bits + extra, width.removed + extra)
        gains = np.maximum(np.floor(np.minimum(wider.top / spans, bound)), 1).astype(int)
        if np.any(gains * spans > wider.top):
            continue
        if (tried := _usage(spans, wider, gains)) > usage + 0.01:
            best, usage = (wider, gains), tried
    return best


def exact_room(bounds: Bounds | None) -> float:
    """How much an accumulator can grow until the verifier would no longer find it exact in float32.

    That goes by what can happen at all, which may be many times what is declared. A quarter of it is taken:
    products, offsets and rounding need the rest.

    Args:
        bounds: Bounds of the accumulator, by ``ir.intervals``.
    """
    return intervals.LARGEST_FLOAT32_INTEGER / 4 / max(*map(abs, bounds or (1.0, 1.0)), 1.0)


def _usage(spans: np.ndarray, width: Width, gains: np.ndarray) -> float:
    """How much of the lattice the channels see, as the mean of its binary logarithm."""
    return float(np.log2(spans * gains / width.top).mean())


def is_fresh(source: ir.Value) -> bool:
    """Whether an accumulator is made of fresh encryptions alone, whose noise leaves room for any weights."""
    pending, seen = [source], set()
    while pending:
        producer = pending.pop().producer()
        if producer is None or producer in seen:
            continue
        if producer.op_type == "TableLookup":
            return False
        seen.add(producer)
        if producer.op_type != "Encrypt":
            pending.extend(variable_inputs(producer))
    return True


def weight_norms(source: ir.Value, channels: int) -> np.ndarray:
    """2-norm of the integer weights behind each channel of an accumulator; 1 where there are none to see."""
    current: ir.Value | None = source
    while current is not None and (producer := current.producer()) is not None:
        linear = linear_of(producer)
        if linear is not None:
            norms = np.sqrt((linear.matrix() ** 2).sum(axis=1))
            return norms if len(norms) == channels else np.full(channels, norms.max())
        variable = variable_inputs(producer)
        if len(variable) != 1 or producer.op_type not in {"Add", "Mul", "Sub"}:
            break
        current = variable[0]
    return np.ones(channels)


def merge_gains(edit: IntegerEditor, source: ir.Value, gains: np.ndarray, axis: int) -> bool:
    """Multiply the weights of the linear operator that makes ``source`` alone; False where there is none.

    A multiplication of its own would cost more: the noise of a whole tensor is counted with its largest
    factor.
    """
    producer = source.producer()
    linear = linear_of(producer) if producer is not None else None
    if linear is None or len(list(source.uses())) != 1 or len(gains) not in {1, linear.channels}:
        return False
    if len(gains) > 1 and axis != linear.channel_axis % len(source.shape or [0, 0]):
        return False
    scaled = linear.matrix() * gains[:, None]
    linear.node.replace_input_with(1, edit.constant(f"{linear.node.name}_filled", linear.stored(scaled)))
    return True
