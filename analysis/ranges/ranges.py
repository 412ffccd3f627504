"""Ranges of integer tensors: sound (interval arithmetic) and observed (calibration data and a margin)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from ...ir import dialect, runtime
from ...ir.graph import LINEAR, MAXIMA, constant_of, variable_inputs
from ...ir.interval_arithmetic import Interval, added, multiplied, negated, subtracted, weighted
from ...ir.movement import may_move
from ...ir.ops import Encrypt, PairLookup, QuantizeLinear, TableLookup
from .margins import TARGET_OVERFLOW_RATE, widened
from .tails import Extremes

_SOURCES = frozenset({"Encrypt", "QuantizeLinear"})
"""Operators that declare their bounds, whatever they read."""
_MAX_RUN_ELEMENTS = 2**26
"""Elements of all tensors that are observed at once."""
FREE_WIDTH_RATIO = 1.1
"""Sound bounds that are at most so many times as wide as the declared ones cost next to nothing."""


class SoundRanges:
    """Smallest and largest value of every element of a tensor, for any input that the client may encrypt.

    Interval arithmetic from the ranges that Encrypt declares, through weights and tables. Linear and layout
    operators are run in onnxruntime on the bounds: weights split into their positive and negative part, so
    that ``high = W+ high + W- low``. Bounds are arrays of the shape of one sample (batch 1).

    Args:
        model: A model of the integer level; nodes may still be replaced upstream of what is asked for next.
    """

    def __init__(self, model: ir.Model) -> None:
        self._opset = model.graph.opset_imports.get("", 21)
        self._known: dict[ir.Value, Interval] = {}
        self._made: dict[ir.Value, tuple[object, ...]] = {}

    def of(self, value: ir.Value) -> Interval:
        """The bounds of a value.

        Raises:
            KeyError: An operator on the way has no rule (the value is no integer tensor).
        """
        pending = [value]
        while pending:
            current = pending[-1]
            producer = current.producer()
            if current in self._known:
                pending.pop()
                continue
            if producer is None:
                raise KeyError(f"no bounds for {current.name!r}")
            missing = [v for v in variable_inputs(producer) if v not in self._known]
            if missing and producer.op_type not in _SOURCES:
                pending.extend(missing)
                continue
            self._known[current] = self._visit(producer)
            self._made[current] = _made_of(producer)
            pending.pop()
        return self._known[value]

    def set(self, value: ir.Value, bounds: Interval) -> None:
        """Take bounds of ``value`` as known: something that stands for it will replace it."""
        self._known[value] = bounds

    def forget(self, value: ir.Value) -> None:
        """Compute the bounds of ``value`` anew when they are next asked for (its producer has changed)."""
        self._known.pop(value, None)

    def forget_changed(self) -> None:
        """Compute anew, when it is asked for, what is made otherwise than when its bounds were computed."""
        kept: dict[ir.Value, Interval] = {}
        for value, bounds in self._known.items():  # what a value is made of comes before it
            producer, made = value.producer(), self._made.get(value)
            if producer is None or made is None or not _same(made, _made_of(producer)):
                continue
            sources = () if producer.op_type in _SOURCES else variable_inputs(producer)
            if all(v in kept for v in sources):
                kept[value] = bounds
        self._known = kept

    def _visit(self, node: ir.Node) -> Interval:
        if node.domain == dialect.DOMAIN:
            return self._dialect(node)
        if node.op_type in LINEAR:
            return self._linear(node) if constant_of(node.inputs[1]) is not None else self._product(node)
        if may_move(node) or node.op_type in MAXIMA | {"ReduceSum", "Clip", "Cast"}:  # they never fall
            given = variable_inputs(node)
            low, high = (self._run(node, *(self._known[v][end] for v in given)) for end in (0, 1))
            return low, high
        if node.op_type == "Neg":
            return negated(self._known[node.inputs[0]])  # type: ignore[index]
        if node.op_type in {"Add", "Sub", "Mul"}:
            return self._arithmetic(node)
        if (quantize := QuantizeLinear.match(node)) is not None:
            zero = quantize.zero_point
            info = np.iinfo(zero.dtype if zero is not None else np.uint8)
            return _everywhere(node.outputs[0], info.min, info.max)
        raise KeyError(f"no rule for {node.op_type} ({node.name})")

    def _dialect(self, node: ir.Node) -> Interval:
        if (pairs := PairLookup.match(node)) is not None:
            return _everywhere(pairs.output, *pairs.entry_range)
        if (encrypt := Encrypt.match(node)) is not None:
            return _everywhere(encrypt.output, *encrypt.range)
        x = node.inputs[0]
        assert x is not None
        low, high = self._known[x]
        if (lookup := TableLookup.match(node)) is not None:
            return lookup_bounds(lookup, low, high)
        return self._run(node, low), self._run(node, high)

    def _run(self, node: ir.Node, *arrays: np.ndarray) -> np.ndarray:
        given = {
            v: a.astype((v.dtype or ir.DataType.FLOAT).numpy())
            for v, a in zip(variable_inputs(node), arrays, strict=True)
        }
        (result,) = runtime.run_nodes([node], given, [node.outputs[0]], self._opset)
        return result.astype(np.float32)

    def _linear(self, node: ir.Node) -> Interval:
        x, w = node.inputs[0], node.inputs[1]
        assert x is not None
        assert w is not None
        weight = constant_of(w)
        assert weight is not None

        def apply(part: np.ndarray, array: np.ndarray | float) -> np.ndarray:
            # Values of its own: a node that reads x and w would count among their users from now on.
            a, b = ir.Value(name="x"), ir.Value(name="w")
            clone = ir.Node("", node.op_type, [a, b], list(node.attributes.values()))
            given = {a: np.asarray(array), b: part}
            return runtime.run_nodes([clone], given, clone.outputs, self._opset)[0]

        positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
        return weighted(self._known[x], partial(apply, positive), partial(apply, negative))

    def _product(self, node: ir.Node) -> Interval:
        """A matrix product of two encrypted tensors."""
        (a, b), (c, d) = (self._bounds(v) for v in node.inputs)
        left = a[..., :, :, None], b[..., :, :, None]
        right = c[..., None, :, :], d[..., None, :, :]
        low, high = multiplied(left, right)
        return low.sum(axis=-2), high.sum(axis=-2)

    def _arithmetic(self, node: ir.Node) -> Interval:
        x, y = (self._bounds(v) for v in node.inputs)
        return {"Add": added, "Sub": subtracted, "Mul": multiplied}[node.op_type](x, y)

    def _bounds(self, value: ir.Value | None) -> Interval:
        assert value is not None
        constant = constant_of(value)
        if constant is not None:
            array = constant.astype(np.float32)
            return array, array
        return self._known[value]


def _made_of(node: ir.Node) -> tuple[object, ...]:
    """What the bounds of a node's output follow from, its inputs' bounds left out."""
    constants = [v.const_value if v is not None else None for v in node.inputs]
    return (node, *node.inputs, *constants, *node.attributes.values())


def _same(made: tuple[object, ...], now: tuple[object, ...]) -> bool:
    return len(made) == len(now) and all(a is b for a, b in zip(made, now, strict=True))


def _sample_shape(value: ir.Value) -> list[int]:
    assert value.shape is not None, value.name
    return [1, *(int(d) if isinstance(d, int) else 1 for d in list(value.shape)[1:])]


def _everywhere(value: ir.Value, low: float, high: float) -> Interval:
    """The same bounds for every element of ``value``, shaped as one sample."""
    shape = _sample_shape(value)
    return np.full(shape, low, np.float32), np.full(shape, high, np.float32)


def lookup_bounds(lookup: TableLookup, low: np.ndarray, high: np.ndarray) -> Interval:
    """Bounds of a table's outputs for inputs within [low, high] (clamped to the table)."""
    table, first, step = lookup.entries, lookup.first, lookup.step
    channel = lookup.channel_of_elements(low.shape)
    top = lookup.size - 1
    a = np.clip((low - first[channel]) // step, 0, top).astype(int)
    b = np.clip((high - first[channel]) // step, 0, top).astype(int)
    smallest, largest = np.empty(low.shape, np.float32), np.empty(low.shape, np.float32)
    size = table.shape[1]
    # One number for channel, first and last entry: numpy sorts rows of several many times slower.
    keys, inverse = np.unique((channel * size + a) * size + b, return_inverse=True)
    spans = [table[k // size // size, k // size % size : k % size + 1] for k in keys]
    smallest.ravel()[:] = np.array([s.min() for s in spans])[inverse.ravel()]
    largest.ravel()[:] = np.array([s.max() for s in spans])[inverse.ravel()]
    return smallest, largest


def observed(
    model: ir.Model, data: Mapping[str, np.ndarray], values: Sequence[ir.Value]
) -> dict[ir.Value, Interval]:
    """Smallest and largest value of every element of ``values`` on ``data``, shaped as one sample."""
    found: dict[ir.Value, Interval] = {}
    for result in _results(model, data, values):
        for value in values:
            array = result[str(value.name)]
            low, high = array.min(axis=0, keepdims=True), array.max(axis=0, keepdims=True)
            if value in found:
                low, high = np.minimum(found[value][0], low), np.maximum(found[value][1], high)
            found[value] = low, high
    return found


Place = tuple[ir.Value, tuple[int, ...]]
"""A tensor, and the axes along which its channels lie."""


def extremes(
    model: ir.Model, data: Mapping[str, np.ndarray], places: Sequence[Place]
) -> dict[Place, Extremes]:
    """Smallest and largest value of every sample of ``data`` in every channel of ``places``."""
    parts: dict[Place, list[Extremes]] = {p: [] for p in places}
    for result in _results(model, data, list(dict.fromkeys(v for v, _ in places))):
        for (value, axes), found in parts.items():
            found.append(Extremes.of(result[str(value.name)], axes))
    return {
        p: Extremes(np.concatenate([f.low for f in found]), np.concatenate([f.high for f in found]))
        for p, found in parts.items()
    }


def _results(
    model: ir.Model, data: Mapping[str, np.ndarray], values: Sequence[ir.Value]
) -> Iterator[dict[str, np.ndarray]]:
    """What ``values`` hold, for some samples after the other."""
    if not values:
        return
    session = runtime.Session(model, [str(v.name) for v in values])
    total = len(next(iter(data.values())))
    size = sum(int(np.prod(_sample_shape(v))) for v in values if v.shape is not None)
    step = max(1, min(256, _MAX_RUN_ELEMENTS // max(1, size)))
    for start in range(0, total, step):
        yield session.run_batched({k: a[start : start + step] for k, a in data.items()})


def over_axes(interval: Interval, keep: Sequence[int]) -> Interval:
    """Bounds that hold for all positions along the axes that are not kept (batch always goes)."""
    low, high = interval
    gone = tuple(i for i in range(low.ndim) if i not in keep)
    return low.min(axis=gone), high.max(axis=gone)


def declare(
    sound: Interval,
    seen: Extremes | None,
    margin: float | str,
    target: float = TARGET_OVERFLOW_RATE,
    cells: int | None = None,
) -> Interval:
    """The bounds that a circuit promises: observed ones with a margin, never more than can happen.

    Args:
        sound: What can happen at all, shaped as one sample.
        seen: What was observed; None for the sound bounds.
        margin, target, cells: As for ``margins.widened``. With ``auto``, channels whose sound bounds are
            hardly wider take those.

    Returns:
        Bounds of the channels of ``seen``, shaped as one sample.
    """
    if seen is None:
        return sound
    gone = tuple(i for i, n in enumerate(seen.low.shape) if i and n == 1)
    least, most = sound[0].min(axis=gone, keepdims=True), sound[1].max(axis=gone, keepdims=True)
    low, high = widened(seen, margin, target, cells)
    low = np.clip(low, least, most)
    high = np.clip(high, low, most)
    if isinstance(margin, str):
        near = most - least <= FREE_WIDTH_RATIO * (high - low)
        low, high = np.where(near, least, low), np.where(near, most, high)
    return low, high
