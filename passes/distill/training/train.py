"""The training loop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .callbacks import Callback
from .losses import Loss, agreement
from .ranges import Ranges
from .samples import Samples
from .student import Student

GRADUAL_SHARE = 0.25
"""Share of the steps in which rounding grows from none to all."""
RANGE_INTERVAL = 50
"""Steps between two looks at the ranges."""
SCORING_INTERVAL = 200
"""Steps between two looks at the samples that are held back."""
WARM_UP_STEPS = 5
"""First steps, which are no measure of how long the others will take."""
SETTLED_SHARE = 0.85
"""Share of the steps after which lattices only move where they must."""
NOISE_DRAWS = 4
"""Draws of noise over which the samples that are held back are scored."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: Batches.
        batch: Samples in each.
        rate: Learning rate of weights, in integer steps.
        others: Rate of (logarithms of) scales, and two thirds of that of biases, over ``rate``.
        until: Stop at this time (``time.monotonic``), whatever the steps; None for no limit.
        final: Share of the rate that the last step has.
    """

    steps: int
    batch: int
    rate: float
    others: float
    until: float | None
    final: float = 0.01


@dataclass
class Best:
    """The best state so far; step -1 is before training."""

    loss: float
    agreement: float
    step: int
    state: dict[str, Any]


@dataclass
class TrainingRun:
    """One training of a student, in place.

    Attributes:
        student: What is trained.
        samples, held: To train on, and to judge by.
        ranges: Of the student's accumulators.
        loss: What is made small, besides the penalties of ``callbacks``.
        recipe: Steps and rates.
        callbacks: Take part in every step.
        progress: Called with (what, done, total).
        best: The best state so far; None while what was asked for has not come about.
    """

    student: Student
    samples: Samples
    held: Samples
    ranges: Ranges
    loss: Loss
    recipe: Recipe
    callbacks: Sequence[Callback]
    progress: Callable[[str, int, int], None]
    best: Best | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        groups = _groups(self.student, self.recipe.rate, self.recipe.others)
        self._optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self._rates = [g["lr"] for g in self._optimizer.param_groups]

    def train(self) -> Best:
        """Train; the student ends in the best state seen on the samples that were held back."""
        best = self._trained()
        self.student.restore(best.state)
        self.progress("distill", self.recipe.steps, self.recipe.steps)
        return best

    def _trained(self) -> Best:
        """All steps; returns the best state."""
        recipe = self.recipe
        self._use_lattices(1.0)
        self.ranges.refresh()
        if self._is_complete(0.0):
            # Training may only make it better: the student as it came is the first candidate.
            self._look(-1)
        began, since = time.monotonic(), 0
        order = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
        for step in range(recipe.steps):
            if recipe.until is not None and time.monotonic() > recipe.until:
                break
            done, last = step / recipe.steps, step == recipe.steps - 1
            strength = self._schedule(step, done)
            self._step(step, done, _batch(self.samples, recipe.batch, order))
            if step == WARM_UP_STEPS:
                began, since = time.monotonic(), step
            scores = step % SCORING_INTERVAL == SCORING_INTERVAL - 1
            if self._is_complete(done) and (last or (strength == 1.0 and scores)):
                self.ranges.refresh(keep=done > SETTLED_SHARE)
                self._look(step)
            if last or scores or step == 4 * WARM_UP_STEPS:
                self._tell(step, (time.monotonic() - began) / max(1, step - since))
        return self.best or self._stopped_early()

    def _is_complete(self, done: float) -> bool:
        """Whether all that was asked for has come about."""
        return all(c.complete(done) for c in self.callbacks)

    def _use_lattices(self, strength: float) -> None:
        for table in self.student.tables:
            table.lattice.strength = strength

    def _look(self, step: int) -> Best:
        """Score the student as it is; it becomes the best where it is better."""
        losses = score(self.student, self.held, self.loss)
        found = Best(*losses, step, copy.deepcopy(self.student.state_dict()))
        if self.best is None or found.loss < self.best.loss:
            self.best = found
        return self.best

    def _schedule(self, step: int, done: float) -> float:
        """Learning rates, strength of the lattices and ranges for a step; returns that strength."""
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * _rate(done, self.recipe.final)
        strength = min(1.0, done / GRADUAL_SHARE)
        self._use_lattices(strength)
        if step % RANGE_INTERVAL == 0:
            self.ranges.refresh(keep=done > SETTLED_SHARE)
        return strength

    def _step(self, step: int, done: float, chosen: Samples) -> None:
        """One step of the optimizer."""
        student, optimizer = self.student, self._optimizer
        for callback in self.callbacks:
            callback.before(step, done)
        student.capture = any(c.capturing() for c in self.callbacks)
        total = self.loss(student(chosen.inputs), chosen.answers, chosen.targets)
        for callback in self.callbacks:
            penalty = callback.penalty(chosen)
            total = total if penalty is None else total + penalty
        student.capture = False
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 5.0)
        optimizer.step()
        for weight in student.weights.values():
            weight.keep_in_range()
        for callback in self.callbacks:
            callback.after(step, done)

    def _tell(self, step: int, seconds: float) -> None:
        """Say how far it is, at so many seconds a step."""
        left = seconds * (self.recipe.steps - 1 - step)
        so_far = "" if self.best is None else f", agreement {self.best.agreement:.1%}"
        self.progress(f"distill (about {left:.0f} s left{so_far})", step + 1, self.recipe.steps)

    def _stopped_early(self) -> Best:
        """The state in the end, where it was stopped before what was asked for had come about."""
        for callback in self.callbacks:
            callback.finish()
        self._use_lattices(1.0)
        self.ranges.refresh()
        return self._look(self.recipe.steps)


def _batch(samples: Samples, size: int, order: torch.Generator) -> Samples:
    pick = torch.randint(len(samples), (size,), generator=order)
    given = torch.rand(size, generator=order) < samples.given_share
    return samples.take(torch.where(given, pick % samples.given, pick))


def _rate(done: float, final: float) -> float:
    """Warm up, then a cosine down to ``final``."""
    if done < 0.02:
        return done / 0.02
    return final + (1 - final) * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done))))


def _groups(student: Student, rate: float, others: float) -> list[dict[str, Any]]:
    scales = [p for n, p in student.named_parameters() if n.endswith("log_scale") and p.requires_grad]
    latent = [p for n, p in student.named_parameters() if n.endswith("latent")]
    return [
        {"params": latent, "lr": rate},
        {"params": scales, "lr": rate * others},
        {"params": list(student.free), "lr": rate * 1.5 * others},
        {"params": [t.lattice.moved for t in student.tables], "lr": rate},
    ]


@torch.no_grad()
def score(student: Student, held: Samples, loss: Loss) -> tuple[float, float]:
    """Loss and agreement on held-back samples, over the same draws of noise every time."""
    state = torch.random.get_rng_state()
    losses, agreed = [], []
    draws = NOISE_DRAWS if student.tables else 1
    for draw in range(draws):
        torch.manual_seed(draw)
        answers = student(held.inputs)
        losses.append(float(loss(answers, held.answers, held.targets)))
        agreed.append(agreement(loss.kind, answers, held.answers, held.targets))
    torch.random.set_rng_state(state)
    return sum(losses) / draws, sum(agreed) / draws
