"""Whether a network tells classes apart or computes values, and what its class scores are."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from ...ir.graph import LAYOUT, variable_inputs
from ...ir.sample_axes import depending

Kind = Literal["classes", "values"]
BEHIND_SCORES = frozenset({"Softmax", "LogSoftmax", "ArgMax", "ArgMin", "Cast", "Hardmax", "ZipMap"})
"""Operators that may stand behind the scores of classes at the end of a network."""
MIN_OTHER_CLASS_SAMPLES = 10
"""Samples of other classes than the most common one that predictions can be judged by."""
MIN_JUDGED_SAMPLES = 20
"""Samples from which on ``MIN_OTHER_CLASS_SAMPLES`` is asked for."""
CONFIDENT_PROBABILITY = 0.6
"""Mean probability of the likeliest class from which on unnamed outputs count as class scores."""


def computed(model: ir.Model) -> list[ir.Value]:
    """The outputs that are computed from an input: a constant beside them has no samples."""
    names = depending(model)
    return [o for o in model.graph.outputs if str(o.name) in names]


def scores(model: ir.Model) -> list[ir.Value]:
    """The tensors to imitate: the computed outputs, or what lies before a Softmax or ArgMax at the end."""
    found: list[ir.Value] = []
    for output in computed(model):
        value = output
        while (producer := value.producer()) is not None and producer.op_type in BEHIND_SCORES | LAYOUT:
            inner = variable_inputs(producer)
            if len(inner) != 1:
                break
            value = inner[0]
        # Layout alone is no reason to look behind it.
        passed = value
        while passed is not output and (reader := next(iter(passed.consumers()), None)) is not None:
            if reader.op_type in BEHIND_SCORES:
                break
            passed = reader.outputs[0]
        if passed not in found:
            found.append(passed)
    return found


def kind_of(answers: list[np.ndarray], cut: list[ir.Value], outputs: list[ir.Value]) -> Kind:
    """Whether the teacher tells classes apart or computes values.

    Where nearly all answers are of one class, the values of the scores say more than the classes do: a
    circuit that knows that class alone would be right as often.
    """
    if len(answers) != 1 or answers[0].ndim != 2 or answers[0].shape[1] < 2:
        return "values"
    if len(answers[0]) >= MIN_JUDGED_SAMPLES and others(answers[0].argmax(axis=1)) < MIN_OTHER_CLASS_SAMPLES:
        return "values"
    if cut[0] is not outputs[0]:
        return "classes"
    shifted = answers[0] - answers[0].max(axis=1, keepdims=True)
    likely = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    return "classes" if likely.max(axis=1).mean() >= CONFIDENT_PROBABILITY else "values"


def others(classes: np.ndarray) -> int:
    """Samples that are not of the most common of their classes."""
    counts = np.unique(classes, return_counts=True)[1]
    return len(classes) - int(counts.max(initial=0))


def foreseen_loss(likely: np.ndarray, wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The accuracy that other classes than the network's own lose, by its own probabilities.

    Args:
        likely: (samples, classes) its probabilities.
        wanted, found: (samples) its classes, and those of a circuit.

    Returns:
        (samples) the probability of its class less that of the circuit's; 0 where they are equal.
    """
    rows, last = np.arange(len(wanted)), likely.shape[1] - 1
    return np.asarray(likely[rows, wanted.clip(0, last)] - likely[rows, found.clip(0, last)])


def changed(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of samples whose class, the largest of scores (N, classes), is another."""
    return float(np.mean(found.argmax(axis=1) != wanted.argmax(axis=1)))
