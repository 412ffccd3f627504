"""What a classifier takes each class for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .analysis.outputs.classes import scores
from .ir.batch_runner import Arrays
from .ir.runtime import Session
from .scoring import is_probability


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
        return np.hstack([1 - found, found]) if is_probability(model, asked[0]) else None
    if np.all(found >= 0) and np.allclose(found.sum(axis=1), 1, atol=1e-3):
        return found
    shifted = np.exp(found - found.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
