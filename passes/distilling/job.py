"""One run of ``distill``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from ...ir import runtime
from ...ir.errors import DataError
from ...ir.graph import constant_of
from ..analysis.classes import kind_of, scores
from ..analysis.noise import noise_steps
from ..base import Context
from .data import image_sizes, pool, split
from .losses import Loss
from .ranges import Ranges
from .reading import weight_nodes
from .student import Student
from .train import Best, Recipe, Samples, train
from .write import write_back

if TYPE_CHECKING:
    from ..distill import Distill

FEWEST, MANY = 32, 200
"""Calibration samples that training needs; those that make it worth while unasked."""
AUTO, ENOUGH = (4, 5), 0.95
"""Bits that are tried, and the agreement with the teacher that is enough."""
GIVEN, SPARSE = 0.5, 20.0
"""Share of each batch that is calibration samples as they are. With many weights for each sample they would
be learnt by heart: the share falls to a third with so many."""


def run(options: Distill, model: ir.Model, context: Context) -> bool:
    """Train ``model`` in place; always changes it.

    Raises:
        DataError: There is too little calibration data.
        UnsupportedError: An operator cannot be differentiated.
    """
    data = context.require_calibration(options.name)
    total, fewest = len(next(iter(data.values()))), MANY if options.optional else FEWEST
    if total < fewest:
        raise DataError(
            "there is too little calibration data to train on",
            found=f"{total} samples",
            allowed=f"at least {fewest}; some hundreds are better",
            do="give more typical inputs, or leave distill out of the pipeline",
        )
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        # Layers of this size are faster on one thread, and give the same bits on every machine then.
        torch.set_num_threads(1)
        try:
            _train(options, model, _prepare(options, model, data, context), context)
        finally:
            torch.set_num_threads(threads)
    return True


@dataclass(frozen=True)
class Task:
    """What every student of a run learns from.

    Attributes:
        samples, held: To train on, and to choose the best state by.
        calibration: Inputs as they are, all of them.
        loss: What is imitated.
        augmented: How many of the samples were made.
    """

    samples: Samples
    held: Samples
    calibration: list[torch.Tensor]
    loss: Loss
    augmented: int


def _prepare(options: Distill, model: ir.Model, data: Mapping[str, np.ndarray], context: Context) -> Task:
    teacher = context.source or model
    random = np.random.default_rng(context.seed)
    asked, names = scores(teacher), [str(v.name) for v in model.graph.inputs]
    parts = split(len(next(iter(data.values()))), options.hold, random)
    given = {k: np.asarray(v)[parts.train] for k, v in data.items()}
    sparse = _weights(model) / len(parts.train)
    inputs, first, second, share = pool(given, options.augment, random, image_sizes(given), sparse)
    session = runtime.Session(teacher, [str(v.name) for v in asked])
    answers = list(session.run_batched(inputs).values())
    kind = options.loss if options.loss != "auto" else kind_of(answers, asked, list(teacher.graph.outputs))
    targets = None
    if options.labels and context.labels is not None and kind == "classes":
        eye = np.eye(answers[0].shape[1], dtype=np.float32)[context.labels[parts.train].astype(int)]
        mixed = share[:, None] * eye[first] + (1 - share[:, None]) * eye[second]
        targets = torch.tensor(mixed, dtype=torch.float32)
    given_share = GIVEN * float(np.exp(-sparse / SPARSE))
    kept = {k: np.asarray(v)[parts.held] for k, v in data.items()}
    held = list(session.run_batched(kept).values())
    count = len(parts.train)
    return Task(
        Samples(_tensors([inputs[n] for n in names]), _tensors(answers), targets, count, given_share),
        Samples(_tensors([kept[n] for n in names]), _tensors(held), None, len(parts.held)),
        _tensors([np.asarray(data[n]) for n in names]),
        Loss(kind, options.temperature, answers, 0.5 if targets is not None else 0.0),
        len(first) - count,
    )


def _train(options: Distill, model: ir.Model, task: Task, context: Context) -> None:
    """Train a student for each width to try, and keep the first that agrees, else the best."""
    widths = AUTO if options.rounding == "auto" else (options.rounding,)
    recipe = Recipe(options.steps, options.batch, options.rate, options.seconds, options.spread)
    chosen: tuple[Best, Student, int] | None = None
    for bits in widths:
        torch.manual_seed(context.seed)
        student = Student(model, bits, noise_steps(context.p_error), scores(model))
        ranges = Ranges(student, task.calibration, context)
        best = train(student, task.samples, task.held, ranges, task.loss, recipe, context.progress)
        if chosen is None or best.agreement > chosen[0].agreement:
            chosen = best, student, bits
        if best.agreement >= ENOUGH:
            break
    assert chosen is not None
    best, student, bits = chosen
    write_back(model, student)
    context.notes.append(
        f"distill: trained on {task.samples.given} calibration samples and {task.augmented} made of them, for"
        f" {f'tables of {bits} bits' if bits else 'unrounded tables'}; {best.agreement:.1%} agreement with"
        f" the imported model on {len(task.held)} samples held back"
    )


def _weights(model: ir.Model) -> int:
    codes = (constant_of(dq.inputs[0]) for _, dq in weight_nodes(model))
    return sum(c.size for c in codes if c is not None)


def _tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]
