"""Reading predictions out of a network's outputs: classes, accuracy, agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .ir.batch_runner import Arrays

if TYPE_CHECKING:
    import onnx_ir as ir


def predictions(outputs: Arrays, model: ir.Model | None = None) -> np.ndarray | None:
    """The class of each sample, where the network is a classifier.

    Integers, one for a sample (a final ArgMax), are the classes. Else the first output with two or more
    values for a sample has the class at its largest value. A single probability (a final Sigmoid in
    ``model``) is class 1 from one half on. Anything else is no classifier.

    Returns:
        (samples) int64, or None.
    """
    flat = {name: a.reshape(len(a), -1) for name, a in outputs.items() if a.ndim and len(a)}
    for array in flat.values():
        if array.shape[1] == 1 and array.dtype.kind in "iub":
            return np.asarray(array[:, 0].astype(np.int64))
    if name := score_output(outputs):
        return np.asarray(flat[name].argmax(axis=1))
    for name, array in flat.items():
        if (
            array.shape[1] == 1
            and array.dtype.kind == "f"
            and model is not None
            and is_probability(model, name)
        ):
            return np.asarray((array[:, 0] >= 0.5).astype(np.int64))
    return None


def score_output(outputs: Arrays) -> str:
    """The output whose largest value is the class; empty where there is none."""
    for name, array in outputs.items():
        shape = array.shape[1:]
        # More than one long axis is an image or a sequence: its largest value is no class.
        if len(array) and shape and array.dtype.kind == "f" and max(shape) == int(np.prod(shape)) > 1:
            return name
    return ""


def is_probability(model: ir.Model, output: str) -> bool:
    """Whether an output of a network is the probability of one of two classes: what a Sigmoid computes."""
    value = next((v for v in model.graph.outputs if v.name == output), None)
    node = value.producer() if value is not None else None
    return node is not None and node.domain == "" and node.op_type == "Sigmoid"


def accuracy(outputs: Arrays, labels: np.ndarray | None, model: ir.Model | None = None) -> float | None:
    """Share of samples whose class is the label; None without labels, or where there are no classes."""
    found = predictions(outputs, model)
    if found is None or labels is None or labels.dtype.kind not in "iub" or len(labels) != len(found):
        return None
    return float((found == labels).mean())


def agreement(outputs: Arrays, expected: Arrays, model: ir.Model | None = None) -> float | None:
    """Share of samples with the same class in both; None where there are no classes."""
    found, wanted = predictions(outputs, model), predictions(expected, model)
    return None if found is None or wanted is None else float((found == wanted).mean())
