"""What the network has without rounding: the entries that rounded tables should have, and the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....analysis.environment import Environment
from ....ir.ops import Decrypt, TableLookup

MAX_SEEN_ELEMENTS = 2**23
"""Elements of a tensor that are looked at one and all; of a larger one ``SAMPLED_ELEMENTS`` are, by lot."""
SAMPLED_ELEMENTS = 2**20
"""Elements that are drawn of a larger tensor."""


@dataclass(frozen=True)
class UnroundedReference:
    """A model without rounding on some samples; a search runs it once for all that it tries.

    Attributes:
        entries: By the name of each TableLookup its outputs, as ``columns`` gives them.
        raw: By the name of each Decrypt what it reads.
        outputs: The graph outputs, in order.
    """

    entries: dict[str, np.ndarray]
    raw: dict[str, np.ndarray]
    outputs: list[np.ndarray]

    @classmethod
    def of(cls, model: ir.Model, data: Mapping[str, np.ndarray]) -> UnroundedReference:
        """Run ``model`` (integer level; not changed) on ``data`` (by input name, samples on axis 0)."""
        env = Environment(model, data, keep=model.graph.outputs)
        entries, raw = {}, {}
        for node in model.graph:
            env.step([node])
            if (lookup := TableLookup.match(node)) is not None:
                entries[lookup.name] = columns(env[lookup.output], lookup.axis)
            elif (decrypt := Decrypt.match(node)) is not None:
                raw[decrypt.name] = env[decrypt.input]
            env.done(node)
        return cls(entries, raw, [env[o] for o in model.graph.outputs])


def columns(array: np.ndarray, axis: int) -> np.ndarray:
    """Elements of a tensor as (positions, channels); of a large one those of a seeded choice of positions.

    The choice is the same for all tensors of a shape.
    """
    moved = np.moveaxis(array, axis, -1)
    if array.size <= MAX_SEEN_ELEMENTS:
        return moved.reshape(-1, moved.shape[-1])
    places = moved.shape[:-1]
    count = max(1, SAMPLED_ELEMENTS // moved.shape[-1])
    chosen = np.random.default_rng(0).integers(0, [[n] for n in places], (len(places), count))
    return np.asarray(moved[tuple(chosen)])
