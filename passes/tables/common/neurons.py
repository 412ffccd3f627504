"""Neurons that a table ends, and how to take some of them out of a network: rows before, columns behind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import Linear, linear_of
from ....ir.graph import LAYOUT, variable_inputs
from . import chain
from .absorb import input_axis
from .moves import Moves, sample_shape
from .shaped_lookup import ShapedLookup


@dataclass(frozen=True)
class Reader:
    """A linear operator that reads the table's output, through layout and constants.

    Attributes:
        linear: The operator.
        way: From the table's output to the operator's input.
    """

    linear: Linear
    way: chain.Chain


@dataclass(frozen=True)
class Site:
    """A table between linear operators: its neurons are the output channels of the first.

    Attributes:
        table: The table.
        linear: The operator that makes the accumulators.
        way: From the accumulators to the table.
        readers: All that reads the table.
        channel: For each element of the table's output its neuron.
        place: For each element its position within the neuron.
    """

    table: ShapedLookup
    linear: Linear
    way: chain.Chain
    readers: tuple[Reader, ...]
    channel: np.ndarray
    place: np.ndarray

    def steps(self) -> Iterator[tuple[ir.Node, ir.Value, np.ndarray]]:
        """Operators in order, with the neuron of each element of the output; linear readers left out."""
        made = _channels(self.linear)
        yield self.linear.node, self.linear.node.outputs[0], made
        yield from _along(self.way, made)
        if self.table.rounding is not None:
            yield self.table.rounding.node, self.table.rounding.output, self.channel
        yield self.table.node, self.table.output, self.channel
        seen = set()
        for reader in self.readers:
            for step in _along(reader.way, self.channel):
                if step[0] not in seen:
                    seen.add(step[0])
                    yield step

    def per_neuron(self, array: np.ndarray) -> np.ndarray:
        """(neurons, places): an array over the table's elements."""
        count = self.linear.channels
        result = np.empty((count, array.size // count), array.dtype)
        result[self.channel.ravel(), self.place.ravel()] = array.ravel()
        return result


def find(table: ir.Node, moves: Moves) -> Site | None:
    """The site of a table; None where something else than linear operators takes part."""
    found = ShapedLookup.match(table)
    if found is None:
        return None
    way = chain.back(found.source, lambda n: linear_of(n) is not None, moves)
    producer = way.start.producer() if way is not None else None
    linear = linear_of(producer) if producer is not None else None
    if way is None or linear is None or linear.groups != 1 or not way.bijective:
        return None
    start = chain.Chain.empty(found.output)
    readers = _readers(start, found.output, moves) if start is not None else None
    if not readers or not all(_simple(n) for n in (*way.nodes, *(n for r in readers for n in r.way.nodes))):
        return None
    channels = _channels(linear)
    flat = channels.ravel()
    order = np.argsort(flat, kind="stable")
    place = np.empty(flat.size, np.int64)
    place[order] = np.arange(flat.size) % (flat.size // linear.channels)
    source = way.source
    return Site(found, linear, way, tuple(readers), flat[source], place[source])


def axis_of(mask: np.ndarray) -> int | None:
    """The one axis of a sample that tells which elements are marked; None where there is none."""
    for axis in range(mask.ndim):
        if (mask == np.take(mask, [0], axis=axis)).all():
            continue
        others = tuple(a for a in range(mask.ndim) if a != axis)
        return axis if (mask.all(axis=others) == mask.any(axis=others)).all() else None
    return None


def _readers(way: chain.Chain, value: ir.Value, moves: Moves) -> list[Reader] | None:
    if value.is_graph_output():
        return None
    found = []
    for use in value.uses():
        linear = linear_of(use.node)
        if linear is not None:
            if linear.groups != 1 or use.idx != 0:
                return None
            found.append(Reader(linear, way))
            continue
        if len(use.node.outputs) != 1 or variable_inputs(use.node) != [value]:
            return None
        output = use.node.outputs[0]
        further = way.then(use.node, output, moves)
        inner = _readers(further, output, moves) if further is not None and further.bijective else None
        if inner is None:
            return None
        found.extend(inner)
    return found


def _simple(node: ir.Node) -> bool:
    """Whether a node follows a smaller input by smaller constants and shapes alone."""
    if node.op_type == "Squeeze" and len(node.inputs) < 2:
        return False
    return node.op_type in LAYOUT | {"Add", "Sub", "Mul", "Neg"}


def _channels(linear: Linear) -> np.ndarray:
    """The output channel of each element of one sample of a linear operator's output."""
    shape = sample_shape(linear.node.outputs[0])
    assert shape is not None
    axis = 0 if linear.node.op_type == "Conv" else len(shape) - 1
    return np.broadcast_to(
        np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape
    ).copy()


def _along(way: chain.Chain, start: np.ndarray) -> Iterator[tuple[ir.Node, ir.Value, np.ndarray]]:
    """The neuron of each element behind every operator of a way."""
    flat = start.ravel()
    for node, source in zip(way.nodes, way.sources, strict=True):
        yield node, node.outputs[0], flat[source]


def same_inputs(reader: Reader, site: Site, stands_for: np.ndarray) -> np.ndarray | None:
    """For each input channel of a reader the one that holds the same values.

    Args:
        reader: The reader.
        site: Its site.
        stands_for: For each neuron the one that it is equal to (itself where there is none).

    Returns:
        (inputs); None where input channels do not map to input channels.
    """
    places = math.prod(site.place.shape) // site.linear.channels
    channel, place = site.channel.ravel()[reader.way.source], site.place.ravel()[reader.way.source]

    def rows(neuron: np.ndarray) -> np.ndarray:
        keys = np.moveaxis(neuron * places + place, input_axis(reader.linear), 0)
        return keys.reshape(len(keys), -1)

    known = {key.tobytes(): i for i, key in enumerate(rows(channel))}
    found = [known.get(key.tobytes()) for key in np.ascontiguousarray(rows(stands_for[channel]))]
    return None if None in found else np.array(found)
