"""What the trials of one search share: a layer behind the same roundings is fitted once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ....ir.interval_arithmetic import Interval
from .lattice import Placed, Width
from .rounding_setting import RoundingSetting


@dataclass(frozen=True)
class Fitted:
    """How one table is rounded.

    Attributes:
        range: Declared bounds of each channel that the table reads.
        width: Width of the accumulator; None where its steps are all kept.
        placed: Where the lattice of each channel lies.
    """

    range: Interval
    width: Width | None = None
    placed: Sequence[Placed] = ()

    @property
    def gains(self) -> np.ndarray:
        """What each channel is multiplied by."""
        return np.array([p.gain for p in self.placed])


@dataclass(frozen=True)
class Memo:
    """Results by the layer, its own setting, and the settings of all tables in front of it."""

    known: dict[Hashable, Any] = field(default_factory=dict)


class Upstream:
    """Which roundings can have changed what a node reads.

    Args:
        nodes: Nodes of the model, topologically sorted, before they are edited.
        settings: For each TableLookup.
    """

    def __init__(self, nodes: Sequence[ir.Node], settings: Mapping[ir.Node, RoundingSetting]) -> None:
        self._settings = [(str(t.name), s) for t, s in settings.items()]
        places = {table: 1 << i for i, table in enumerate(settings)}
        reached: dict[ir.Value, int] = {}
        self._before: dict[ir.Node, int] = {}
        for node in nodes:
            mask = 0
            for value in node.inputs:
                mask |= reached.get(value, 0) if value is not None else 0
            self._before[node] = mask
            mask |= places.get(node, 0)
            if mask:
                reached.update(dict.fromkeys(node.outputs, mask))

    def key(self, node: ir.Node, *more: Hashable) -> Hashable:
        """Equal in two walks that find the same in front of ``node``."""
        mask = self._before[node]
        return (node.name, *more, *(s for i, s in enumerate(self._settings) if mask >> i & 1))
