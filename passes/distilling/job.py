"""One run of ``distill``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from ...ir import runtime
from ...ir.errors import DataError
from ..analysis.noise import noise_steps
from ..base import Context
from .data import image_sizes, pool, split
from .losses import Loss, kind_of, scores
from .ranges import Ranges
from .student import Student
from .train import Recipe, Samples, train
from .write import write_back

if TYPE_CHECKING:
    from ..distill import Distill

FEWEST = 32
CLOSE = 1e-2


def run(options: Distill, model: ir.Model, context: Context) -> bool:
    """Train ``model`` in place; always changes it."""
    data = context.require_calibration(options.name)
    total = len(next(iter(data.values())))
    if total < FEWEST:
        raise DataError(
            "there is too little calibration data to train on",
            found=f"{total} samples",
            allowed=f"at least {FEWEST}; some hundreds are better",
            do="give more typical inputs, or leave distill out of the pipeline",
        )
    teacher = context.source or model
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        # Layers of this size are faster on one thread, and give the same bits on every machine then.
        torch.set_num_threads(1)
        try:
            _train(options, model, teacher, data, context)
        finally:
            torch.set_num_threads(threads)
    return True


def _train(
    options: Distill, model: ir.Model, teacher: ir.Model, data: Mapping[str, np.ndarray], context: Context
) -> None:
    random = np.random.default_rng(context.seed)
    cut, asked = scores(model), scores(teacher)
    student = Student(model, options.rounding, noise_steps(context.p_error), cut)
    parts = split(len(next(iter(data.values()))), options.hold, random)
    given = {k: np.asarray(v)[parts.train] for k, v in data.items()}
    inputs, first, second, share = pool(given, options.augment, random, image_sizes(given))
    session = runtime.Session(teacher, [str(v.name) for v in asked])
    answers = list(session.run_batched(inputs).values())
    kind = options.loss if options.loss != "auto" else kind_of(answers, asked, list(teacher.graph.outputs))
    targets = None
    if options.labels and context.labels is not None and kind == "classes":
        eye = np.eye(answers[0].shape[1], dtype=np.float32)[context.labels[parts.train].astype(int)]
        targets = share[:, None] * eye[first] + (1 - share[:, None]) * eye[second]
    samples = Samples(
        _tensors([inputs[n] for n in student.inputs]),
        _tensors(answers),
        None if targets is None else torch.tensor(targets, dtype=torch.float32),
        len(parts.train),
    )
    kept = {k: np.asarray(v)[parts.held] for k, v in data.items()}
    held = Samples(
        _tensors([kept[n] for n in student.inputs]), _tensors(list(session.run_batched(kept).values())), None, len(parts.held)
    )
    loss = Loss(kind, options.temperature, answers, 0.5 if targets is not None else 0.0)
    ranges = Ranges(student, _tensors([np.asarray(data[n]) for n in student.inputs]), context)
    recipe = Recipe(options.steps, options.batch, options.rate, options.seconds, options.spread)
    best = train(student, samples, held, ranges, loss, recipe, context.progress)
    write_back(model, student)
    context.notes.append(
        f"distill: trained on {len(parts.train)} calibration samples and {len(samples) - len(parts.train)} made"
        f" of them; {best.agreement:.1%} agreement with the imported model on {len(parts.held)} held back"
    )


def _tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]
