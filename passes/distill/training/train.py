"""The training loop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


def train(
    student: Student,
    samples: Samples,
    held: Samples,
    ranges: Ranges,
    loss: Loss,
    recipe: Recipe,
    callbacks: Sequence[Callback],
    progress: Callable[[str, int, int], None],
) -> Best:
    """Train in place; the student ends in the best state seen on the samples that were held back."""
    optimizer = torch.optim.Adam(_groups(student, recipe.rate, recipe.others), betas=(0.9, 0.99))
    first = [g["lr"] for g in optimizer.param_groups]
    for table in student.tables:
        table.lattice.strength = 1.0
    ranges.refresh()
    best: Best | None = None

    def look(step: int) -> Best:
        found = Best(*score(student, held, loss), step, copy.deepcopy(student.state_dict()))
        return found if best is None or found.loss < best.loss else best

    if all(c.complete(0.0) for c in callbacks):
        # Training may only make it better: the student as it came is the first candidate.
        best = look(-1)
    began, since = time.monotonic(), 0
    order = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
    for step in range(recipe.steps):
        done = step / recipe.steps
        if recipe.until is not None and time.monotonic() > recipe.until:
            break
        for group, rate in zip(optimizer.param_groups, first, strict=True):
            group["lr"] = rate * _rate(done, recipe.final)
        strength = min(1.0, done / GRADUAL_SHARE)
        for table in student.tables:
            table.lattice.strength = strength
        if step % RANGE_INTERVAL == 0:
            ranges.refresh(keep=done > SETTLED_SHARE)
        for callback in callbacks:
            callback.before(step, done)
        chosen = _batch(samples, recipe.batch, order)
        student.capture = any(c.capturing() for c in callbacks)
        total = loss(student(chosen.inputs), chosen.answers, chosen.targets)
        for callback in callbacks:
            penalty = callback.penalty(chosen)
            total = total if penalty is None else total + penalty
        student.capture = False
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 5.0)
        optimizer.step()
        for weight in student.weights.values():
            weight.keep_in_range()
        for callback in callbacks:
            callback.after(step, done)
        last = step == recipe.steps - 1
        if step == WARM_UP_STEPS:
            began, since = time.monotonic(), step
        ready = all(c.complete(done) for c in callbacks)
        if ready and (last or (strength == 1.0 and step % SCORING_INTERVAL == SCORING_INTERVAL - 1)):
            ranges.refresh(keep=done > SETTLED_SHARE)
            best = look(step)
        if last or step % SCORING_INTERVAL == SCORING_INTERVAL - 1 or step == 4 * WARM_UP_STEPS:
            left = (time.monotonic() - began) / max(1, step - since) * (recipe.steps - 1 - step)
            so_far = "" if best is None else f", agreement {best.agreement:.1%}"
            progress(f"distill (about {left:.0f} s left{so_far})", step + 1, recipe.steps)
    if best is None:  # stopped before what was asked for had come about
        for callback in callbacks:
            callback.finish()
        for table in student.tables:
            table.lattice.strength = 1.0
        ranges.refresh()
        best = look(recipe.steps)
    student.restore(best.state)
    progress("distill", recipe.steps, recipe.steps)
    return best


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
