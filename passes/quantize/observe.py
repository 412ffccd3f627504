"""Values of the float model on calibration data, and how much of the data a network leaves room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.finite import check_network, check_sums
from ...ir.movement import sample_shape

MAX_ALIVE_ELEMENTS = 2**27
"""Elements of the widest tensor on all samples: the walk through the layers holds a few such at once."""
MAX_KEPT_ELEMENTS = 2**24
"""Elements kept of one tensor of the float model; of a wider one fewer samples are kept."""
MAX_RUN_ELEMENTS = 2**26
"""Elements of all tensors that one run of the float model returns."""
_MIN_SAMPLES = 8
"""Samples that are taken however large they are."""
_BATCH_SAMPLES = 256
"""Most samples of one run of the float model."""


def affordable(
    model: ir.Model, data: Mapping[str, np.ndarray], most: int = MAX_ALIVE_ELEMENTS
) -> Mapping[str, np.ndarray]:
    """The calibration data, or as many of its first samples as memory has room for.

    Args:
        model: With inferred shapes.
        data: Arrays by input name, samples on axis 0.
        most: Elements that the widest tensor of the graph may have on all samples.
    """
    total = len(next(iter(data.values())))
    widest = max((_elements(o) for n in model.graph for o in n.outputs), default=1)
    samples = max(_MIN_SAMPLES, most // widest)
    return data if samples >= total else {k: v[:samples] for k, v in data.items()}


def observe(
    model: ir.Model,
    values: Sequence[ir.Value],
    data: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None],
) -> dict[ir.Value, np.ndarray]:
    """Values inside the graph, samples on axis 0; of wide ones the first samples only."""
    if not values:
        return {}
    total = len(next(iter(data.values())))
    keep = {v: min(total, max(_MIN_SAMPLES, MAX_KEPT_ELEMENTS // _elements(v))) for v in values}
    size = max(1, min(_BATCH_SAMPLES, MAX_RUN_ELEMENTS // sum(map(_elements, values))))
    session = runtime.Session(model, [v.name or "" for v in values])
    if size >= total or session.batch_size():
        found = session.run_batched(data, progress=progress)
        return {v: found[v.name or ""][: keep[v]] for v in values}
    kept: dict[ir.Value, np.ndarray] = {}
    for start in range(0, total, size):
        part = session.run({k: data[k][start : start + size] for k in session.inputs})
        for value in values:
            array = part[value.name or ""]
            if value not in kept:
                kept[value] = np.empty((keep[value], *array.shape[1:]), array.dtype)
            room = kept[value][start : start + size]
            room[:] = array[: len(room)]
        progress(min(start + size, total), total)
    return kept


def _elements(value: ir.Value) -> int:
    shape = sample_shape(value)
    return max(1, int(np.prod(shape))) if shape is not None else 1


def finite(
    model: ir.Model, data: Mapping[str, np.ndarray], value: ir.Value, array: np.ndarray, notes: list[str]
) -> np.ndarray:
    """The values of a tensor, with the nearest known number for what is none (the logarithm of a negative).

    Args:
        model: The float model, and
        data: what it was run on.
        value: Which tensor.
        array: Its values.
        notes: Are told.

    Raises:
        ModelError: A place is finite for no sample.
    """
    node, wrong = value.producer(), ~np.isfinite(array)
    if wrong.all(axis=0).any():
        check_network(model, data)
    elif wrong.any():
        rows = wrong.reshape(len(array), -1).any(axis=1)
        check_sums(model, {k: v[rows] for k, v in data.items() if len(v) == len(rows)})
    note = (
        f"quantize: {node.name if node else value.name} is not a finite number for"
        f" {int(wrong.reshape(len(array), -1).any(axis=1).sum())} of {len(array)} calibration samples"
    )
    if note not in notes:
        notes.append(note)
    known = array[~wrong] if not wrong.all() else np.zeros(1)
    return np.nan_to_num(array, nan=0.0, posinf=float(known.max()), neginf=float(known.min()))
