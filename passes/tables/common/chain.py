"""What lies between two places of a graph: moved elements, and what constants do to each of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir import runtime
from ....ir.graph import variable_inputs
from .moves import Moves, arithmetic_input, sample_shape


@dataclass(frozen=True)
class Chain:
    """Element i of the end is ``slope[i] * start[source[i]] + offset[i]``.

    Attributes:
        start: The first value.
        nodes: The operators on the way, in order.
        source: Element number in one sample of ``start``, for each element of the end.
        slope, offset: Shaped like ``source``.
        sources: ``source`` behind each of the operators.
    """

    start: ir.Value
    nodes: tuple[ir.Node, ...]
    source: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    sources: tuple[np.ndarray, ...] = ()

    @classmethod
    def empty(cls, start: ir.Value) -> Chain | None:
        """The chain that ends where it starts; None where the shape is not known."""
        shape = sample_shape(start)
        if shape is None:
            return None
        source = np.arange(math.prod(shape)).reshape(shape)
        return cls(start, (), source, np.ones(shape), np.zeros(shape))

    def then(self, node: ir.Node, output: ir.Value, moves: Moves) -> Chain | None:
        """The chain through one operator more; None where it does anything but move, add and multiply."""
        nodes = (*self.nodes, node)
        places = moves(output)
        if places is not None:
            source, slope, offset = (a.ravel()[places] for a in (self.source, self.slope, self.offset))
            return Chain(self.start, nodes, source, slope, offset, (*self.sources, source))
        given = arithmetic_input(node)
        if given is None:
            return None
        batch = np.stack([self.offset, self.offset + self.slope]).astype(np.float32)
        (found,) = runtime.run_nodes([node], {given: batch}, [output], moves.opset)
        zero, one = found.astype(np.float64)
        return Chain(self.start, nodes, self.source, one - zero, zero, (*self.sources, self.source))

    @property
    def bijective(self) -> bool:
        """Whether every element of the start arrives exactly once."""
        shape = sample_shape(self.start)
        total = math.prod(shape or ())
        return self.source.size == total and len(np.unique(self.source)) == total


def back(end: ir.Value, stop: Callable[[ir.Node], bool], moves: Moves) -> Chain | None:
    """The chain that ends at ``end`` and starts at the nearest output of a node that ``stop`` accepts."""
    steps: list[tuple[ir.Node, ir.Value]] = []
    current = end
    while (node := current.producer()) is not None and not stop(node):
        variable = variable_inputs(node)
        if len(variable) != 1 or (moves(current) is None and arithmetic_input(node) is None):
            return None
        steps.append((node, current))
        current = variable[0]
    chain = Chain.empty(current) if node is not None else None
    for node, output in reversed(steps):
        chain = chain.then(node, output, moves) if chain is not None else None
    return chain
