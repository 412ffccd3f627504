"""What a file's outputs are made of, so that a student can make the same of scores: seen from its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from ...ir.editing import GraphEditor
from ...ir.errors import UnsupportedError

MIN_PROBABILITY = 0.02
"""Probabilities are imitated by their logarithms, down to this one: forests give 0 to most classes."""
SUM_ERROR = 1e-3
"""How far the sum of a row of probabilities may be from 1."""
MAX_CLASSES = 1000
"""Different labels from which on whole numbers are no classes."""
CERTAIN_SCORE = 4.0
"""Score of the class that a file names, over the others, where it says no more than its label."""


@dataclass(frozen=True)
class Form:
    """How one output is made of a tensor of scores.

    Attributes:
        name: Of the output.
        kind: ``probabilities`` (softmax of the scores), ``values`` (the scores themselves) or ``labels`` (of
            the largest score).
        source: Number of the tensor of scores.
        dtype: Type of the output.
        classes: Labels by the place of their score, for ``labels``.
    """

    name: str
    kind: Literal["probabilities", "values", "labels"]
    source: int
    dtype: ir.DataType
    classes: np.ndarray | None = None

    def write(self, editor: GraphEditor, scores: ir.Value) -> ir.Value:
        """Nodes that make the output of its scores, behind the circuit."""
        if self.kind != "labels":
            found = scores
            if self.kind == "probabilities":
                found = editor.add("Softmax", [scores], "student/Softmax", {"axis": 1}, like=scores)
            if self.dtype is not ir.DataType.FLOAT:
                found = editor.add("Cast", [found], "student/Cast", {"to": int(self.dtype)}, like=scores)
                found.type = ir.TensorType(self.dtype)
            return found
        assert self.classes is not None
        largest = editor.add("ArgMax", [scores], "student/ArgMax", {"axis": 1, "keepdims": 0})
        largest.type, largest.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(["N"])
        found = editor.add(
            "Gather", [editor.constant("student/classes", self.classes), largest], "student/labels"
        )
        found.type, found.shape = ir.TensorType(self.dtype), ir.Shape(["N"])
        return found


@dataclass(frozen=True)
class Forms:
    """All outputs of a file.

    Attributes:
        outputs: In their order.
        shapes: Of one sample of each tensor of scores.
    """

    outputs: Sequence[Form]
    shapes: Sequence[tuple[int, ...]]

    @property
    def tells_classes(self) -> bool:
        """Whether one tensor of scores of classes is all that there is."""
        return len(self.shapes) == 1 and any(f.kind != "values" for f in self.outputs)

    def scores(self, answers: Mapping[str, np.ndarray]) -> np.ndarray:
        """(samples, scores) that a student imitates, of the outputs by name."""
        found: dict[int, np.ndarray] = {}
        for form in sorted(self.outputs, key=lambda f: f.kind == "labels"):
            array = answers[form.name]
            if form.source in found:
                continue
            flat = array.reshape(len(array), -1)
            if form.kind == "labels":
                assert form.classes is not None
                flat = CERTAIN_SCORE * (array.reshape(-1, 1) == form.classes)
            elif form.kind == "probabilities":
                flat = np.log(flat.clip(MIN_PROBABILITY, 1.0))
            found[form.source] = flat.astype(np.float32)
        return np.concatenate([found[i] for i in range(len(self.shapes))], axis=1)


def forms_of(outputs: Sequence[ir.Value], answers: Mapping[str, np.ndarray]) -> Forms:
    """What the outputs are, by their names, types and values for typical inputs.

    Raises:
        UnsupportedError: An output holds no numbers, and no labels that belong to scores.
    """
    found: dict[str, Form] = {}
    shapes: list[tuple[int, ...]] = []
    floats = [v for v in outputs if answers[str(v.name)].dtype.kind == "f"]
    for value in floats:
        name, array = str(value.name), answers[str(value.name)]
        rows = array.ndim == 2 and array.shape[1] > 1
        sums = rows and bool(np.abs(array.sum(axis=1) - 1).max() < SUM_ERROR) and bool(array.min() >= 0)
        kind: Literal["probabilities", "values"] = "probabilities" if sums else "values"
        found[name] = Form(name, kind, len(shapes), value.dtype or ir.DataType.FLOAT)
        shapes.append(array.shape[1:])
    for value in outputs:
        name = str(value.name)
        if name in found:
            continue
        array = answers[name]
        classes = np.unique(array)
        if array.ndim != 1 or len(classes) > MAX_CLASSES:
            raise UnsupportedError(
                "this output is imitated in no form",
                found=f"{name!r}: {array.dtype} of shape {list(array.shape)}",
                allowed="numbers, probabilities, and a label for each sample",
                do="leave it out of the model's outputs",
            )
        source, order = _scores_of(array, classes, found, answers)
        if source is None:
            source, order = len(shapes), classes
            shapes.append((len(classes),))
        found[name] = Form(name, "labels", source, value.dtype or ir.DataType.INT64, order)
    return Forms([found[str(v.name)] for v in outputs], shapes)


def _scores_of(
    labels: np.ndarray, classes: np.ndarray, found: Mapping[str, Form], answers: Mapping[str, np.ndarray]
) -> tuple[int | None, np.ndarray]:
    """The scores whose largest is that of the label, and the label of each of them."""
    for form in found.values():
        scores = answers[form.name]
        if scores.ndim != 2 or scores.shape[1] < 2:
            continue
        largest = scores.argmax(axis=1)
        order = np.resize(classes[:1], scores.shape[1])
        for place in np.unique(largest):
            several, counts = np.unique(labels[largest == place], return_counts=True)
            order[place] = several[counts.argmax()]
        # Ties, and the rounding of a runtime, may decide a few otherwise.
        if np.mean(order[largest] == labels) > 1 - 0.01:
            return form.source, order
    return None, classes
