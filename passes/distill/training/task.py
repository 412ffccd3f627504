"""What every student of a run learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from ....analysis.augmentation.images import image_sizes
from ....analysis.augmentation.pool import MAX_POOL_BYTES, is_small, pool, split
from ....analysis.outputs.classes import computed, kind_of, scores
from ....ir import runtime
from ....ir.errors import DataError
from ....ir.graph import constant_of
from ...framework.base import Context
from ..settings import Teaching
from .entry import entering, entries
from .losses import Loss
from .matching import layer_values, matched_layers
from .reading import weight_nodes
from .samples import Samples

UNCHANGED_SHARE = 0.5
"""Share of each batch that is calibration samples as they are, where the student has few weights."""
MANY_WEIGHTS_A_SAMPLE = 20.0
"""Weights for each sample with which that share falls to a third: samples would be learnt by heart."""
LABEL_WEIGHT = 0.9
"""Weight of the labels beside the teacher, where they are used."""


@dataclass(frozen=True)
class Task:
    """What every student of a run learns from.

    Attributes:
        samples, held: To train on, and to choose the best state by; inputs are what the encrypted part starts
            from (``entry.entries``).
        calibration: The same of all calibration inputs, as they are.
        loss: What is imitated.
        augmented: How many of the samples were made.
        matched: Layers whose outputs are imitated, too.
        few: Whether the inputs have few elements, and are encrypted as they are.
        teacher: Its answers for inputs in graph order.
        kept: Indices of the calibration samples that are held back; none where all are trained on.
    """

    samples: Samples
    held: Samples
    calibration: list[torch.Tensor]
    loss: Loss
    augmented: int
    matched: list[str]
    few: bool
    teacher: Callable[[list[torch.Tensor]], list[torch.Tensor]]
    kept: np.ndarray


def prepare(teaching: Teaching, model: ir.Model, data: Mapping[str, np.ndarray], context: Context) -> Task:
    """Make samples, and ask the teacher.

    Args:
        teaching: What is imitated, and on which samples.
        model: The student, qdq level.
        data: Calibration inputs.
        context: The teacher, labels and the seed.
    """
    teacher = context.source or model
    random = np.random.default_rng(context.seed)
    asked, names = scores(teacher), [str(v.name) for v in model.graph.inputs]
    parts = split(len(next(iter(data.values()))), teaching.validation_share, random)
    given = {k: np.asarray(v)[parts.train] for k, v in data.items()}
    kept = {k: np.asarray(v)[parts.held] for k, v in data.items()}
    sparse = _weights(model) / len(parts.train)
    size = max(1, sum(a.nbytes for a in entering(model, given)))
    copies = min(teaching.augment, max(1, MAX_POOL_BYTES // size))
    inputs, first, second, share = pool(given, copies, random, image_sizes(given), sparse)
    matched = matched_layers(model, teacher, len(first)) if teaching.match else []
    session = runtime.Session(teacher, [str(v.name) for v in [*asked, *layer_values(teacher, matched)]])
    answers = list(session.run_batched(inputs).values())
    held = list(session.run_batched(kept).values())
    inner, answers, held = answers[len(asked) :], answers[: len(asked)], held[: len(asked)]
    kind = teaching.loss if teaching.loss != "auto" else kind_of(answers, asked, computed(teacher))
    targets = held_targets = None
    if teaching.labels and context.labels is not None and kind == "classes":
        _require_classes(context.labels, answers[0].shape[1])
        eye = np.eye(answers[0].shape[1], dtype=np.float32)
        of_train = eye[context.labels[parts.train].astype(int)]
        mixed = share[:, None] * of_train[first] + (1 - share[:, None]) * of_train[second]
        if is_small(given):
            mixed[len(parts.train) :] = 0.0
        targets = torch.tensor(mixed, dtype=torch.float32)
        held_targets = torch.from_numpy(eye[context.labels[parts.held].astype(int)])

    def ask(given: list[torch.Tensor]) -> list[torch.Tensor]:
        found = session.run_batched({n: x.numpy() for n, x in zip(names, given, strict=True)})
        return _tensors(list(found.values())[: len(asked)])

    given_share = UNCHANGED_SHARE * float(np.exp(-sparse / MANY_WEIGHTS_A_SAMPLE))
    count = len(parts.train)
    return Task(
        Samples(
            _tensors(entering(model, inputs)),
            _tensors(answers),
            targets,
            count,
            given_share,
            _tensors(inner),
        ),
        Samples(_tensors(entering(model, kept)), _tensors(held), held_targets, len(parts.held)),
        _tensors(entering(model, data)),
        Loss(kind, teaching.temperature, answers, LABEL_WEIGHT if targets is not None else 0.0),
        len(first) - count,
        matched,
        is_small(given) and entries(model) == list(model.graph.inputs),
        ask,
        parts.held if teaching.validation_share else parts.held[:0],
    )


def _require_classes(labels: np.ndarray, count: int) -> None:
    """Refuse labels that are none of the network's classes: nothing can be trained on them.

    Raises:
        DataError: A label is no whole number from 0 to ``count`` - 1.
    """
    if labels.dtype.kind not in "iub" or labels.min() < 0 or labels.max() >= count:
        raise DataError(
            "labels that are none of the network's classes cannot be trained on",
            found=f"{'whole' if labels.dtype.kind in 'iub' else 'other'} numbers from {labels.min():g} to"
            f" {labels.max():g}",
            allowed=f"the {count} classes, counted from 0 to {count - 1}",
            do="write the classes so (subtract 1 where they are counted from 1), or leave out labels=true",
        )


def _weights(model: ir.Model) -> int:
    codes = (constant_of(dq.inputs[0]) for _, dq in weight_nodes(model))
    return sum(c.size for c in codes if c is not None)


def _tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]
