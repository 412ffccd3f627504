"""One run of ``distill``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from ....analysis.noise.noise import noise_steps
from ....analysis.outputs.classes import scores
from ....ir.errors import DataError
from ...compress.remove_neurons.goal import RemovalTarget
from ...framework.base import Context
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
from .train import Best, Recipe, train
from .write import write_back

if TYPE_CHECKING:
    from ..distill import Distill

FEWEST, MANY = 32, 200
"""Calibration samples that training needs; those that make it worth while unasked."""
AUTO, ENOUGH = (4, 5), 0.95
"""Bits that are tried, and the agreement with the teacher that is enough."""
REMOVING, STILL = 0.4, 0.3
"""Share of the steps in which neurons are removed, and of the rate at their end."""


def run(options: Distill, model: ir.Model, context: Context) -> bool:
    """Train ``model`` in place; always changes it.

    Raises:
        DataError: There is too little calibration data.
        UnsupportedError: An operator cannot be differentiated.
        PipelineError: ``layers`` names a layer that is not there, or what it does not take.
        LimitError: An accumulator width cannot be kept.
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
            task = prepare(options, model, data, context)
            zeros = meant_zeros(model, context.quantized_from, every=options.keep_zeros)
            _Job(options, model, task, zeros, context).run()
            if len(task.kept):
                context.unfitted.append(task.kept)
        finally:
            torch.set_num_threads(threads)
    return True


@dataclass
class _Job:
    options: Distill
    model: ir.Model
    task: Task
    zeros: dict[str, np.ndarray]
    context: Context

    def run(self) -> None:
        """Remove neurons, if asked to; then train for each width until one agrees, else keep the best."""
        options = self.options
        widths: tuple[int, ...] = AUTO if options.rounding == "auto" else (options.rounding,)
        until = None if options.seconds is None else time.monotonic() + options.seconds
        steps = options.steps
        if options.removes:
            removing = self._recipe(round(steps * REMOVING), until, STILL)
            self._remove(widths[0], removing)
            steps -= removing.steps
        recipe = self._recipe(steps, until)
        chosen: tuple[Best, Student] | None = None
        for bits in widths:
            best, student = self._train(bits, recipe)
            if chosen is None or best.agreement > chosen[0].agreement:
                chosen = best, student
            if best.agreement >= ENOUGH:
                break
        assert chosen is not None
        self._finish(*chosen)

    def _recipe(self, steps: int, until: float | None, final: float = 0.01) -> Recipe:
        options = self.options
        return Recipe(max(1, steps), options.batch, options.rate, options.scale_rate, until, final)

    def _remove(self, bits: int, recipe: Recipe) -> None:
        """Train while neurons go, and make the model smaller."""
        options, student = self.options, self._student(bits)
        structure = find_units(self.model)
        options.check_units(structure)
        target = RemovalTarget(
            options.remove,
            options.balance == "uniform",
            options.of_layers("remove"),
            None if options.latency is None else options.latency * 1000,
        )
        removal = Removal(student, structure, target, self.context)
        self._fit(student, recipe, [*self._penalties(student), removal])
        if removal.gone:
            self.context.notes.append(removal.notes())
        write_back(self.model, student, lattices=False)
        shrink_quantized(self.model, structure, removal.gone, self.zeros)

    def _train(self, bits: int, recipe: Recipe) -> tuple[Best, Student]:
        """One student; it ends in its best state."""
        options, student = self.options, self._student(bits)
        limit_accumulators(student, lambda name: options.of("accumulator_bits", name))
        wanted = {
            str(node.name): Wanted(
                weight,
                weight.axis,
                options.of("sparsity", str(node.name)) or 0.0,
                options.of("nonzeros", str(node.name)),
            )
            for node, weight in layers(student)
        }
        callbacks = [
            *self._penalties(student),
            Sparsity(wanted, options.scope),
            *([self._grids(student)] if self.task.few else []),
            Matching(student, self.task.matched, self.task.samples, options.match),
        ]
        return self._fit(student, recipe, callbacks), student

    def _grids(self, student: Student) -> Grids:
        return Grids(student, self.task.samples, self.task.loss, self.task.teacher)

    def _student(self, bits: int) -> Student:
        torch.manual_seed(self.context.seed)
        own = self.options.of_layers("rounding")
        noise = noise_steps(self.context.p_error)
        student = Student(self.model, lambda layer: own.get(layer, bits), noise, scores(self.model))
        self.options.check_layers({str(n.name) for n, _ in layers(student)}, student.layers)
        keep_zeros(student, self.zeros)
        return student

    def _penalties(self, student: Student) -> list[Callback]:
        weights = [w for _, w in layers(student)]
        found: list[Callback] = [Norms(student), Widths(weights, self.options.narrow)]
        return [*found, Spread(student, self.options.spread)] if self.options.spread else found

    def _fit(self, student: Student, recipe: Recipe, callbacks: list[Callback]) -> Best:
        task = self.task
        ranges = Ranges(student, task.calibration, self.context)
        return train(
            student, task.samples, task.held, ranges, task.loss, recipe, callbacks, self.context.progress
        )

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
