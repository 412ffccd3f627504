"""What a network of values loses in all, by quantization and rounding, and layers that can do with less."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ....analysis.cost.cost import estimate
from ....ir import runtime
from ....ir.errors import OnnxFheError
from ...framework.base import Context

TARGET_LOSS = 0.04
"""Mean squared error over variance, of the worst number that a network puts out, that is aimed at: new
samples lose a little more than those that were looked at, and an R^2 of 0.95 is to be kept."""
LOWERING_LOSS_SHARE = 0.75
"""Share of it up to which single layers go down further than the tolerance of rounding alone allows."""
WORTHWHILE_PRICE_SHARE = 0.9
"""A layer goes down where that takes the price of the circuit to this share."""


def network_outputs(
    context: Context, data: Mapping[str, np.ndarray], like: Sequence[np.ndarray]
) -> list[np.ndarray] | None:
    """What the imported network puts out; None where that is not known, or not what ``like`` holds."""
    if context.source is None:
        return None
    try:
        found = list(runtime.run(context.source, data).values())
    except (OnnxFheError, KeyError):  # imported in another form: with other inputs, or for another batch
        return None
    same = len(found) == len(like) and all(a.shape == b.shape for a, b in zip(found, like, strict=True))
    return found if same else None


def lower_layers(
    places: Sequence[int],
    order: Sequence[int],
    rounded: Callable[[Sequence[int]], ir.Model],
    lost: Callable[[ir.Model], float],
) -> list[int]:
    """Take single layers down as long as the network loses no more than it may in all.

    Args:
        places: For each table its place among the settings, which stand in order of their price.
        order: The tables that may change, the largest first.
        rounded: The model at given places.
        lost: ``analysis.divergence.worst_error`` of a model.
    """
    best = list(places)
    price = estimate(rounded(best)).complexity
    for index in order:
        for down in (1, 2):  # the next setting may be the same bits, filled less
            tried = [p - down if i == index else p for i, p in enumerate(best)]
            if tried[index] < 0:
                continue
            model = rounded(tried)
            cost = estimate(model).complexity
            if cost <= WORTHWHILE_PRICE_SHARE * price and lost(model) <= LOWERING_LOSS_SHARE * TARGET_LOSS:
                best, price = tried, cost
                break
    return best
