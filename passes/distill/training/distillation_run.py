"""One run of ``distill``."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from ....analysis.noise.noise import noise_steps
from ....analysis.outputs.classes import scores
from ....ir.errors import DataError
from ...compress.remove_neurons.goal import RemovalTarget
from ...framework.base import Context
from ..settings import TrainingSettings
from .callbacks import Callback
from .grids import Grids
from .matching import Matching
from .penalties import Norms, Spread, Widths
from .ranges import Ranges
from .removal import Removal, find_units, shrink_quantized
from .restrictions import keep_zeros, layers, limit_accumulators, meant_zeros
from .sparsity import Sparsity, Wanted
from .student import Student
from .task import Task, prepare
from .train import Best, Recipe, TrainingRun
from .write import write_back

MIN_SAMPLES = 32
"""Calibration samples that training needs."""
MIN_UNASKED_SAMPLES = 200
"""Calibration samples that make training worth while where the user did not ask for it."""
AUTO_ROUNDING = (4, 5)
"""Bits that reach tables with ``rounding=auto``, in the order in which they are tried."""
ENOUGH_AGREEMENT = 0.95
"""Agreement with the teacher on held-back samples from which on no wider tables are tried."""
REMOVAL_STEP_SHARE = 0.4
"""Share of the steps in which neurons are removed."""
RATE_AFTER_REMOVAL = 0.3
"""Learning rate at the end of those steps, as a share of the first."""


def run(settings: TrainingSettings, model: ir.Model, context: Context) -> bool:
    """Train ``model`` in place; always changes it.

    Raises:
        DataError: There is too little calibration data.
        UnsupportedError: An operator cannot be differentiated.
        PipelineError: ``layers`` names a layer that is not there, or what it does not take.
        LimitError: An accumulator width cannot be kept.
    """
    data = context.require_calibration("distill")
    total, fewest = len(next(iter(data.values()))), MIN_SAMPLES if settings.required else MIN_UNASKED_SAMPLES
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
            task = prepare(settings.teaching, model, data, context)
            zeros = meant_zeros(model, context.quantized_from, every=settings.limits.keep_zeros)
            _DistillationRun(settings, model, task, zeros, context).run()
            if len(task.kept):
                context.findings.unfitted.append(task.kept)
        finally:
            torch.set_num_threads(threads)
    return True


@dataclass
class _DistillationRun:
    """One run on a model: students of the widths that are asked for, and the best of them written back."""

    settings: TrainingSettings
    model: ir.Model
    task: Task
    zeros: dict[str, np.ndarray]
    context: Context

    def run(self) -> None:
        """Remove neurons, if asked to; then train for each width until one agrees, else keep the best."""
        settings = self.settings
        widths: tuple[int, ...] = AUTO_ROUNDING if settings.rounding == "auto" else (settings.rounding,)
        until = None if settings.seconds is None else time.monotonic() + settings.seconds
        steps = settings.steps
        if settings.removal is not None:
            removing = self._recipe(round(steps * REMOVAL_STEP_SHARE), until, RATE_AFTER_REMOVAL)
            self._remove(settings.removal, widths[0], removing)
            steps -= removing.steps
        recipe = self._recipe(steps, until)
        chosen: tuple[Best, Student] | None = None
        for bits in widths:
            best, student = self._train(bits, recipe)
            if chosen is None or best.agreement > chosen[0].agreement:
                chosen = best, student
            if best.agreement >= ENOUGH_AGREEMENT:
                break
        assert chosen is not None
        self._finish(*chosen)

    def _recipe(self, steps: int, until: float | None, final: float = 0.01) -> Recipe:
        settings = self.settings
        return Recipe(
            max(1, steps), settings.batch, settings.learning_rate, settings.scale_rate, until, final
        )

    def _remove(self, target: RemovalTarget, bits: int, recipe: Recipe) -> None:
        """Train while neurons go, and make the model smaller."""
        student = self._student(bits)
        structure = find_units(self.model)
        self.settings.layers.check_units(structure)
        removal = Removal(student, structure, target, self.context)
        self._fit(student, recipe, [*self._penalties(student), removal])
        if removal.gone:
            self.context.notes.append(removal.notes())
        write_back(self.model, student, lattices=False)
        shrink_quantized(self.model, structure, removal.gone, self.zeros)

    def _train(self, bits: int, recipe: Recipe) -> tuple[Best, Student]:
        """One student; it ends in its best state."""
        limits, of_layer, student = self.settings.limits, self.settings.layers.of, self._student(bits)
        limit_accumulators(student, lambda name: of_layer("accumulator_bits", name, limits.accumulator_bits))
        wanted = {
            str(node.name): Wanted(
                weight,
                weight.axis,
                of_layer("sparsity", str(node.name), limits.sparsity) or 0.0,
                of_layer("nonzeros", str(node.name), limits.nonzeros),
            )
            for node, weight in layers(student)
        }
        callbacks = [
            *self._penalties(student),
            Sparsity(wanted, limits.scope),
            *([self._grids(student)] if self.task.few else []),
            Matching(student, self.task.matched, self.task.samples, self.settings.teaching.match),
        ]
        return self._fit(student, recipe, callbacks), student

    def _grids(self, student: Student) -> Grids:
        return Grids(student, self.task.samples, self.task.loss, self.task.teacher)

    def _student(self, bits: int) -> Student:
        torch.manual_seed(self.context.seed)
        own = self.settings.layers.given("rounding")
        noise = noise_steps(self.context.target.p_error)
        student = Student(self.model, lambda layer: own.get(layer, bits), noise, scores(self.model))
        self.settings.layers.check({str(n.name) for n, _ in layers(student)}, student.layers)
        keep_zeros(student, self.zeros)
        return student

    def _penalties(self, student: Student) -> list[Callback]:
        limits, weights = self.settings.limits, [w for _, w in layers(student)]
        found: list[Callback] = [Norms(student), Widths(weights, limits.accumulator_penalty)]
        return [*found, Spread(student, limits.spread)] if limits.spread else found

    def _fit(self, student: Student, recipe: Recipe, callbacks: list[Callback]) -> Best:
        task = self.task
        ranges = Ranges(student, task.calibration, self.context)
        return TrainingRun(
            student, task.samples, task.held, ranges, task.loss, recipe, callbacks, self.context.progress
        ).train()

    def _finish(self, best: Best, student: Student) -> None:
        task = self.task
        write_back(self.model, student)
        whom = "the labels" if task.held.targets is not None else "the imported model"
        self.context.notes.append(
            f"distill: trained on {task.samples.given} calibration samples and {task.augmented} made of them,"
            f" for {_widths(student)}; {best.agreement:.1%} agreement"
            f" with {whom} on {len(task.held)} samples held back"
        )
        total = sum(w.latent.numel() for w in student.weights.values())
        zero = sum(int((w.mask == 0).sum()) for w in student.weights.values())
        if zero:
            self.context.notes.append(f"distill: {zero} of {total} weights are masked ({zero / total:.0%})")


def _widths(student: Student) -> str:
    found = sorted({t.lattice.bits for t in student.tables})
    return f"tables of {' and '.join(map(str, found))} bits" if found else "unrounded tables"
