"""Comparing two sets of outputs, column by column, with measures that one bad sample cannot move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..analysis.outputs.classes import kind_of, scores
from ..ir.batch_runner import Arrays
from ..scoring import predictions, score_output
from .figures import Classes, OutputFigures

TRIMMED_SHARE = 0.05
"""Share of the largest errors, and of the values furthest from the median, that robust measures leave out."""
FLOAT_ERROR_SHARE = 1e-5
"""Share of the largest value that float arithmetic in another order may change. Less than that does not
vary."""
MINOR_SPREAD_SHARE = 0.05
"""Share of the largest spread of an output's columns, below which a column is not judged by its own variance:
pixels at the edge of an image, probabilities of a class that hardly occurs."""
MIN_CHANNELWISE_ELEMENTS = 256
"""Elements of an output, of three or more axes, from which on those of a channel are taken together."""
FAR_OFF_SPREADS = 1.0
"""Spreads of the output that a sample may differ by before it counts as far off."""
MAX_NAMED_SAMPLES = 5
"""Samples far off that are named."""


@dataclass(frozen=True)
class Comparison:
    """What was found on all samples; the fields are those of ``figures.Fidelity``.

    Attributes:
        scores: The output that the class is read from as the largest value; empty for no such one.
    """

    outputs: tuple[OutputFigures, ...]
    classes: Classes | None
    median_sample_error: float
    far: tuple[int, ...]
    far_count: int
    scores: str = ""


def compare(
    wanted: Arrays, found: Arrays, model: ir.Model | None = None, labels: np.ndarray | None = None
) -> Comparison:
    """Compare outputs.

    Args:
        wanted: The network's, by name, samples on axis 0.
        found: The circuit's on the same samples, in the same order; names may differ.
        model: A model with these graph outputs: a Sigmoid at its end makes classes of probabilities.
        labels: (samples) classes, where known.
    """
    found = dict(zip(wanted, found.values(), strict=True))
    outputs: list[OutputFigures] = []
    errors: list[np.ndarray] = []
    for name, array in wanted.items():
        if array.dtype.kind != "f":
            outputs.append(_of_class(name, array, found[name]))
            continue
        figures, each = _of_values(name, array, found[name])
        outputs += figures
        errors.append(each)
    per_sample = np.sqrt(np.mean(errors, axis=0)) if errors else np.zeros(1)
    far = np.flatnonzero(per_sample > FAR_OFF_SPREADS)
    return Comparison(
        tuple(outputs),
        classes_of(wanted, found, model, labels),
        float(np.median(per_sample)),
        tuple(int(i) for i in far[np.argsort(-per_sample[far], kind="stable")][:MAX_NAMED_SAMPLES]),
        len(far),
        score_output(wanted),
    )


def classes_of(
    wanted: Arrays, found: Arrays, model: ir.Model | None, labels: np.ndarray | None
) -> Classes | None:
    """How often both predict the same class; None for no classifier."""
    mine, its = predictions(found, model), predictions(wanted, model)
    if mine is None or its is None:
        return None
    agreement, kappa, error, others = _kappa(its, mine)
    predicted = len(np.unique(mine))
    known = labels if labels is not None and labels.dtype.kind in "iub" and len(labels) == len(its) else None
    right = None if known is None else (its == known, mine == known)
    return Classes(
        agreement,
        kappa,
        error,
        predicted,
        others,
        known is not None or tells_classes(wanted, model),
        None if right is None else float(right[1].mean()),
        None if right is None else float(right[0].mean()),
        0 if right is None else int(right[0].sum()) - int(right[1].sum()),
    )


def tells_classes(outputs: Arrays, model: ir.Model | None) -> bool:
    """Whether the outputs surely are classes, or scores of classes, rather than values."""
    if any(a.dtype.kind in "iub" and a.ndim and a[0].size == 1 for a in outputs.values()):
        return True
    if any(a.ndim > 1 and a[0].size == 1 for a in outputs.values()):
        return predictions(outputs, model) is not None and predictions(outputs) is None
    if model is None or any(o.producer() is None for o in model.graph.outputs):
        return False
    return kind_of(list(outputs.values()), scores(model), list(model.graph.outputs)) == "classes"


def _kappa(wanted: np.ndarray, found: np.ndarray) -> tuple[float, float | None, float, int]:
    """Agreement, Cohen's kappa with its standard error, and samples outside of the most common class."""
    total = len(wanted)
    values, numbers = np.unique(np.concatenate([wanted, found]), return_inverse=True)
    p = np.bincount(numbers[:total], minlength=len(values)) / total
    q = np.bincount(numbers[total:], minlength=len(values)) / total
    agreement, chance = float((wanted == found).mean()), float((p * q).sum())
    others = total - round(total * float(p.max()))
    if not others:
        return agreement, None, 0.0, 0
    error = float(np.sqrt(agreement * (1 - agreement) / total)) / max(1 - chance, 1e-9)
    return agreement, (agreement - chance) / max(1 - chance, 1e-9), error, others


def _of_class(name: str, wanted: np.ndarray, found: np.ndarray) -> OutputFigures:
    """An output of integers, booleans or names: what is equal counts."""
    found = found.reshape(wanted.shape)
    flat, its = wanted.reshape(-1), found.reshape(-1)
    several = len(wanted) < len(flat)
    return OutputFigures(
        name,
        None,
        varies=bool(len(flat)) and bool((flat != flat[0]).any()),
        constant=not (len(its) and bool((its != its[0]).any())),
        same=float((flat == its).mean()) if len(flat) else 1.0,
        kappa=_kappa(flat, its)[1] if several else None,
    )


def _of_values(name: str, wanted: np.ndarray, found: np.ndarray) -> tuple[list[OutputFigures], np.ndarray]:
    """Columns of an output of numbers, and the mean square difference of each sample, in spreads."""
    a, b = _columns(wanted), _columns(found.reshape(wanted.shape))
    usable = np.isfinite(a)
    middle = np.median(np.where(usable, a, 0.0), axis=(0, 2), keepdims=True)
    a = np.where(usable, a, middle)
    # What the network has no number for cannot be followed; a circuit without one is as far off as can be.
    b = np.where(usable, b, middle)
    largest = np.abs(a).max(axis=(0, 2), initial=0.0)
    b = np.where(np.isfinite(b), b, a + 10 * (1 + largest[None, :, None]))
    varies = np.ptp(a, axis=(0, 2)) > FLOAT_ERROR_SHARE * largest
    spread = np.where(varies, a.std(axis=(0, 2)), 0.0)
    top = float(spread.max(initial=0.0))
    minor = varies & (spread < MINOR_SPREAD_SHARE * top)
    difference = np.abs(a - b)
    constant = np.ptp(b, axis=(0, 2)) <= np.maximum(
        FLOAT_ERROR_SHARE * np.abs(b).max(axis=(0, 2)), 1e-3 * spread
    )
    r2 = _explained(difference, a - a.mean(axis=(0, 2), keepdims=True), 0.0)
    robust = _explained(difference, a - middle, TRIMMED_SHARE)
    unit = np.maximum(spread, MINOR_SPREAD_SHARE * top) if top else np.maximum(largest, 1e-12)
    several = a.shape[1] > 1
    figures = [
        OutputFigures(
            name,
            c if several else None,
            float(r2[c]) if varies[c] else None,
            float(robust[c]) if varies[c] and np.isfinite(robust[c]) else None,
            float(difference[:, c].mean()),
            float(np.median(difference[:, c])),
            float(spread[c]),
            top or float(largest.max(initial=0.0)),
            bool(varies[c]),
            bool(constant[c]),
            bool(minor[c]),
        )
        for c in range(a.shape[1])
    ]
    return figures, ((difference / unit[None, :, None]) ** 2).mean(axis=(1, 2))


def _columns(array: np.ndarray) -> np.ndarray:
    """(samples, columns, values of each): channels for images and sequences, else single elements."""
    total, size = len(array), int(np.prod(array.shape[1:]))
    values = array.astype(np.float64)
    if array.ndim <= 2 or size <= MIN_CHANNELWISE_ELEMENTS:
        return values.reshape(total, size, 1)
    # Channels are axis 1 of images, the last one of sequences.
    channels = np.moveaxis(values, 1 if array.ndim > 3 else -1, 1)
    return channels.reshape(total, channels.shape[1], -1)


def _explained(error: np.ndarray, deviation: np.ndarray, trimmed: float) -> np.ndarray:
    """1 minus the squared error over the squared deviation, by column; NaN where nothing deviates."""
    wrong, there = (_squares(x, trimmed) for x in (error, deviation))
    whole = (deviation**2).mean(axis=(0, 2))
    usable = there > 1e-9 * whole
    return np.where(usable, 1 - wrong / np.where(usable, there, 1.0), np.nan)


def _squares(values: np.ndarray, trimmed: float) -> np.ndarray:
    """Mean of the squares by column, without the largest."""
    flat = np.sort(np.moveaxis(values, 1, 0).reshape(values.shape[1], -1) ** 2, axis=1)
    left_out = int(np.ceil(trimmed * flat.shape[1])) if flat.shape[1] > 2 else 0
    return np.asarray(flat[:, : flat.shape[1] - left_out].mean(axis=1))
