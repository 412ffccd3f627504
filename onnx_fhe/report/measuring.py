"""Where accuracy is lost: the network at each stage, layer by layer, on the same samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..analysis.noise.noise import NoisyModel
from ..analysis.outputs.divergence import output_error
from ..analysis.ranges.ranges import observed
from ..ir import runtime
from ..ir.batch_runner import Arrays
from ..ir.errors import OnnxFheError, printable
from ..ir.graph import LINEAR
from ..ir.interval_arithmetic import Interval
from ..ir.ops import TableLookup
from ..ir.p_error import recorded
from ..record import Headroom, InputRange, LayerFidelity, Measurements, Stage
from ..scoring import accuracy, agreement

MAX_MEASURED_SAMPLES = 256
"""Samples of a measurement."""
MAX_HELD_ELEMENTS = 20_000_000
"""Elements of all compared layers together that are held at once."""
TOLERANT_P_ERROR = 1e-2
"""An error rate that many networks take without harm; what it would do is always measured."""


def measure(
    model: ir.Model,
    data: Mapping[str, np.ndarray],
    *,
    source: ir.Model | None = None,
    reduced: ir.Model | None = None,
    labels: np.ndarray | None = None,
    p_error: float | None = None,
    file: str = "",
) -> Measurements:
    """Compare an integer-level model with the network that it came from.

    Args:
        model: Integer level.
        data: Arrays by input name, samples on axis 0.
        source: The network as imported; without it the integer model is the reference.
        reduced: What the pass that quantized was given: the network with layers or neurons removed.
        labels: (samples) classes, where known.
        p_error: Tolerated error of one lookup; without it no noise is drawn.
        file: Where the data is from.

    Returns:
        As much as could be measured: a network that onnxruntime cannot run leaves a ``problem``.
    """
    given = len(next(iter(data.values())))
    pairs = _pairs(reduced or source, model) if source is not None else []
    watched = [v for pair in pairs for v in pair] + [x.source for x in TableLookup.all_in(model)]
    each = sum(math.prod(d for d in list(v.shape or [])[1:] if isinstance(d, int)) for v in watched)
    samples = min(given, max(8, min(MAX_MEASURED_SAMPLES, MAX_HELD_ELEMENTS // max(1, each))))
    part = {k: v[:samples] for k, v in data.items()}
    stages: tuple[Stage, ...] = ()
    layers: tuple[LayerFidelity, ...] = ()
    tables: tuple[Headroom, ...] = ()
    problem = ""
    try:
        tables = headroom(model, part)
        stages = _stages(model, source, reduced, part, None if labels is None else labels[:samples], p_error)
        if source is not None:
            layers = _fidelity(reduced or source, model, pairs, part)
    except Exception as error:  # noqa: BLE001 - what only a report needs must not keep a circuit from being made
        problem = printable(
            error.what if isinstance(error, OnnxFheError) else f"{type(error).__name__}: {error}"
        )
    inputs = tuple(
        InputRange(k, float(v.min()), float(v.max()))
        for k, v in data.items()
        if v.size and v.dtype.kind in "iufb"
    )
    return Measurements(samples, given, Path(file).name, inputs, stages, layers, tables, problem)


def headroom(model: ir.Model, data: Mapping[str, np.ndarray]) -> tuple[Headroom, ...]:
    """How much of its declared range each table of an integer-level model uses on ``data``."""
    found = TableLookup.all_in(model)
    seen = observed(model, data, list(dict.fromkeys(x.source for x in found)))
    return tuple(share(x, seen[x.source]) for x in found)


def share(lookup: TableLookup, bounds: Interval) -> Headroom:
    """Bounds of an accumulator (shaped as one sample) against what its table declares."""
    low, high = bounds
    first = lookup.per_channel(lookup.integer_first, low.ndim)
    span = max(1, lookup.span)
    return Headroom(lookup.name, float(((low - first) / span).min()), float(((high - first) / span).max()))


def _stages(
    model: ir.Model,
    source: ir.Model | None,
    reduced: ir.Model | None,
    data: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    p_error: float | None,
) -> tuple[Stage, ...]:
    def run(name: str, of: ir.Model) -> tuple[str, Arrays, float | None]:
        return name, runtime.Session(of).run_batched(data), None

    runs = [] if source is None else [run("float", source)]
    if source is not None and reduced is not None and _size(reduced) != _size(source):
        runs.append(run("reduced", reduced))
    runs.append(run("integer", model))
    # Where the lookups say what they tolerate, there is nothing to try out.
    tried: set[float] = (
        set() if p_error is None else {p_error} if recorded(model) else {p_error, TOLERANT_P_ERROR}
    )
    runs += [("encrypted", NoisyModel(model, p).run(data), p) for p in sorted(tried)]
    reference = runs[0][1]
    found = []
    for name, outputs, p in runs:
        # Outputs may be renamed; their order is the interface.
        outputs = dict(zip(reference, outputs.values(), strict=True))
        found.append(
            Stage(
                name,
                output_error(list(outputs.values()), list(reference.values())),
                agreement(outputs, reference, model),
                accuracy(outputs, labels, model),
                p,
            )
        )
    return tuple(found)


def _size(model: ir.Model) -> int:
    """Constants that count: those of linear operators."""
    return sum(
        v.const_value.size
        for n in model.graph
        if n.op_type in LINEAR
        for v in n.inputs[1:2]
        if v is not None and v.const_value is not None
    )


def _pairs(reference: ir.Model | None, model: ir.Model) -> list[tuple[ir.Value, ir.Value]]:
    """Outputs of the linear operators that both models have under the same name."""
    if reference is None:
        return []
    named = {n.name: n for n in reference.graph if n.op_type in LINEAR}
    return [
        (named[n.name].outputs[0], n.outputs[0])
        for n in model.graph
        if n.op_type in LINEAR and n.name and n.name in named
    ]


def _fidelity(
    reference: ir.Model,
    model: ir.Model,
    pairs: list[tuple[ir.Value, ir.Value]],
    data: Mapping[str, np.ndarray],
) -> tuple[LayerFidelity, ...]:
    if not pairs:
        return ()
    wanted = runtime.run(reference, data, list(dict.fromkeys(str(a.name) for a, _ in pairs)))
    found = runtime.run(model, data, list(dict.fromkeys(str(b.name) for _, b in pairs)))
    layers = []
    for a, b in pairs:
        producer = b.producer()
        axis = 1 if producer is not None and producer.op_type == "Conv" else -1
        value = divergence(wanted[str(a.name)], found[str(b.name)], axis)
        if value is not None and producer is not None:
            layers.append(LayerFidelity(str(producer.name), value))
    return tuple(layers)


def divergence(wanted: np.ndarray, found: np.ndarray, axis: int) -> float | None:
    """Share of the variance of ``wanted`` that no scale and offset of each channel of ``found`` explains.

    Integers stand for the numbers of the network times a scale, which differs by channel: so correlation is
    what tells whether they carry the same information. Where channels were removed, each that is left is
    compared with the one that it resembles most.

    Args:
        wanted, found: (samples, ...), of one shape but for the number of channels.
        axis: Axis of the channels.

    Returns:
        0 (the same) to 1 (nothing in common); None where they cannot be compared.
    """
    if wanted.ndim != found.ndim or wanted.ndim < 2:
        return None
    a, b = (np.moveaxis(x.astype(np.float64), axis, -1) for x in (wanted, found))
    if a.shape[:-1] != b.shape[:-1] or not a.size or not b.size:
        return None
    a, b = (x.reshape(-1, x.shape[-1]) for x in (a, b))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    power, own = (a**2).sum(axis=0), (b**2).sum(axis=0)
    if a.shape[1] == b.shape[1]:
        explained = _squared((a * b).sum(axis=0), power * own)
        weight = power
    else:
        table = _squared(a.T @ b, power[:, None] * own[None, :])
        best = table.argmax(axis=0)
        explained, weight = table[best, np.arange(table.shape[1])], power[best]
    total = float(weight.sum())
    if not total > 0 or not math.isfinite(total):
        return None
    return float(np.clip((weight * (1 - explained)).sum() / total, 0.0, 1.0))


def _squared(product: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Squared correlations; 0 where something is constant."""
    return np.asarray(np.divide(product**2, norms, out=np.zeros_like(product), where=norms > 0))
