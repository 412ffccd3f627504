"""Calibration data from which little can be learned, and labels that are none of the network's classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ..analysis.outputs.classes import scores
from ..ir.errors import DataError

MIN_SAMPLES = 20
"""Samples from which on ranges and accuracies mean something."""
MIN_DIFFERENT_SAMPLES = 200
"""Different samples below which a note says that new ones may be unlike all of them. What was not
seen in ``n`` samples may still be as frequent as 3 in ``n``, at 95 % (the rule of three: Hanley and
Lippman-Hand, If nothing goes wrong, is everything all right?, 1983)."""
MIN_CELLS = 8
"""Cells of a sample from which on it is strange that all are the same."""
TOLD_BLANK_SHARE = 0.25
"""Share of blank samples from which on a note says so."""
TOLD_REPEATED_SHARE = 0.5
"""Share of repeated samples from which on a note says so."""

_DO = "give a few hundred samples that are typical of what comes at run time"


def data_warnings(data: Mapping[str, np.ndarray]) -> list[str]:
    """Warnings about calibration data.

    Args:
        data: Arrays by input name, samples on axis 0.

    Raises:
        DataError: Every sample is the same blank: no range can be read from it.
    """
    total = len(next(iter(data.values())))
    rows = np.concatenate([_flat(a) for a in data.values()], axis=1)
    distinct = len(np.unique(rows, axis=0))
    blank = int(_blank(data).sum())
    if blank == total and distinct == 1 and rows.shape[1] > 1:
        raise DataError(
            "every calibration sample is the same blank, so nothing can be learned from it",
            found=f"{total} sample{'s' * (total != 1)} in which every value is {rows[0, 0]:g}",
            allowed="samples that differ, and cover what comes at run time",
            do=_DO,
        )
    found = []
    if total == 1:
        found.append(
            "there is only one calibration sample: ranges are those of this sample, and how well the circuit"
            f" follows the network cannot be told; {_DO}"
        )
    elif distinct == 1:
        found.append(
            f"all {total} calibration samples are the same: ranges are those of one sample, and how well the"
            f" circuit follows the network cannot be told; {_DO}"
        )
    elif distinct <= TOLD_REPEATED_SHARE * total:
        found.append(f"only {distinct} of the {total} calibration samples are different; {_DO}")
    elif total < MIN_SAMPLES:
        found.append(f"there are only {total} calibration samples; {_DO}")
    elif distinct < MIN_DIFFERENT_SAMPLES:
        found.append(
            f"there are {distinct} different calibration samples: up to {300 / distinct:.1g} % of the samples"
            f" to come may be unlike all of them, and what the circuit makes of those is not known; {_DO}"
        )
    if total > 1 and blank > TOLD_BLANK_SHARE * total:
        found.append(
            f"{blank} of the {total} calibration samples are blank (all their values are the same); leave"
            " them out if they are not meant"
        )
    if len(data) > 1 and distinct > 1:
        still = [name for name, a in data.items() if len(np.unique(_flat(a), axis=0)) == 1]
        found += [
            f"input {name!r} is the same in every calibration sample: the circuit is made for that value only"
            for name in still
        ]
    return found


def label_warnings(model: ir.Model, labels: np.ndarray | None) -> list[str]:
    """Warnings about labels of a network that tells classes apart; labels that get one are of no use.

    Args:
        model: The network.
        labels: (samples), as they were given.
    """
    classes = classes_in(model)
    if labels is None or classes is None:
        return []
    do = f"the {classes} classes are counted from 0 to {classes - 1}"
    if labels.dtype.kind not in "iub":
        return [
            "the labels are no whole numbers, so there is no accuracy: for a network of several outputs give"
            f" the class of each sample; {do}"
        ]
    outside = (labels < 0) | (labels >= classes)
    count = int(outside.sum())
    if not count:
        return []
    low, high = int(labels.min()), int(labels.max())
    if low == 1 and high == classes:
        help_ = f"{do}: subtract 1 from the labels"
    elif low < 0:
        help_ = f"{do}: leave out the samples whose class is not known"
    else:
        help_ = f"{do}: check that the labels are those of this network"
    return [
        f"{count} of {len(labels)} labels are none of the network's classes (labels from {low} to {high}), so"
        f" there is no accuracy; {help_}"
    ]


def usable_labels(model: ir.Model, labels: np.ndarray | None) -> np.ndarray | None:
    """The labels, where they can be compared with predictions."""
    return None if label_warnings(model, labels) else labels


def classes_in(model: ir.Model) -> int | None:
    """How many classes a network tells apart; None where it has no such output, or that is not known."""
    found = scores(model)
    if len(model.graph.outputs) == 0 or not found or found[0].shape is None:
        return None
    sizes = [d if isinstance(d, int) else None for d in found[0].shape.dims[1:]]
    known = [s for s in sizes if s != 1]
    if len(known) == 1 and known[0] is not None:
        return known[0]
    producer = model.graph.outputs[0].producer()
    # One probability: the class is that, or not.
    return 2 if not known and producer is not None and producer.op_type == "Sigmoid" else None


def _flat(array: np.ndarray) -> np.ndarray:
    # Complex numbers are refused later, by the node that reads them.
    return np.asarray(np.real(array).reshape(len(array), -1), dtype=np.float64)


def _blank(data: Mapping[str, np.ndarray]) -> np.ndarray:
    """(samples) whether every value of every input with enough cells is the same."""
    large = [_flat(a) for a in data.values() if a[0].size >= MIN_CELLS]
    if not large:
        return np.zeros(len(next(iter(data.values()))), bool)
    return np.asarray(np.all([np.ptp(a, axis=1) == 0 for a in large], axis=0))
