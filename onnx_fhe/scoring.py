"""Reading predictions out of a network's outputs: classes, accuracy, agreement."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .analysis.outputs.classes import scores
from .ir.runtime import Arrays, Session


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
            and _is_probability(model, name)
        ):
            return np.asarray((array[:, 0] >= 0.5).astype(np.int64))
    return None


def probabilities(model: ir.Model, data: Arrays) -> np.ndarray | None:
    """What a classifier takes each class for: its probabilities, or the Softmax of its scores.

    Args:
        model: Float network.
        data: Inputs by name, samples on axis 0.

    Returns:
        (samples, classes), each sample's sum 1, for the classes of ``predictions``; None where the network
        has no such scores.
    """
    asked = [str(v.name) for v in scores(model)]
    if len(asked) != 1:
        return None
    found = Session(model, asked).run_batched(data)[asked[0]]
    found = found.reshape(len(found), -1).astype(np.float64)
    if found.shape[1] == 1:
        return np.hstack([1 - found, found]) if _is_probability(model, asked[0]) else None
    if np.all(found >= 0) and np.allclose(found.sum(axis=1), 1, atol=1e-3):
        return found
    shifted = np.exp(found - found.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def score_output(outputs: Arrays) -> str:
    """The output whose largest value is the class; empty where there is none."""
    for name, array in outputs.items():
        shape = array.shape[1:]
        # More than one long axis is an image or a sequence: its largest value is no class.
        if len(array) and shape and array.dtype.kind == "f" and max(shape) == int(np.prod(shape)) > 1:
            return name
    return ""


def _is_probability(model: ir.Model, output: str) -> bool:
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
