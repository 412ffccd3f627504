"""The training loop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .losses import Loss, agreement
from .ranges import Ranges
from .student import Student

GRADUAL = 0.25
"""Share of the steps in which rounding grows from none to all."""
REFRESH, LOOK = 50, 200
"""Steps between two looks at the ranges, and at the samples that are held back."""
SETTLED = 0.85
"""Share of the steps after which lattices only move where they must."""
DRAWS = 4
"""Draws of noise over which the samples that are held back are scored."""


@dataclass(frozen=True)
class Samples:
    """What to train or score on.

    Attributes:
        inputs: In graph order, samples on axis 0.
        answers: The teacher's.
        targets: Probabilities of classes by label, where labels are used.
        given: How many, from the first on, are calibration samples as they are.
        given_share: Share of each batch that is taken from those alone.
    """

    inputs: list[torch.Tensor]
    answers: list[torch.Tensor]
    targets: torch.Tensor | None
    given: int
    given_share: float = 0.0

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, index: torch.Tensor) -> Samples:
        """Some of them."""
        targets = None if self.targets is None else self.targets[index]
        return Samples([x[index] for x in self.inputs], [a[index] for a in self.answers], targets, len(index))


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        steps: Batches.
        batch: Samples in each.
        rate: Learning rate of weights, in integer steps.
        seconds: Stop after so long, whatever the steps; None for no limit.
        spread: Weight of the penalty on ranges much wider than what they mostly hold.
    """

    steps: int
    batch: int
    rate: float
    seconds: float | None
    spread: float


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
    progress: Callable[[str, int, int], None],
) -> Best:
    """Train in place; the student ends in the best state seen on the samples that were held back."""
    optimizer = torch.optim.Adam(_groups(student, recipe.rate), betas=(0.9, 0.99))
    started, first = time.monotonic(), [g["lr"] for g in optimizer.param_groups]
    # Training may only make it better: the student as it came is the first candidate.
    for table in student.tables:
        table.lattice.strength = 1.0
    ranges.refresh()
    best = Best(*score(student, held, loss), -1, copy.deepcopy(student.state_dict()))
    order = torch.Generator().manual_seed(int(torch.randint(2**31, (1,))))
    for step in range(recipe.steps):
        done = step / recipe.steps
        late = recipe.seconds is not None and time.monotonic() - started > recipe.seconds
        if late:
            break
        for group, rate in zip(optimizer.param_groups, first, strict=True):
            group["lr"] = rate * _rate(done)
        strength = min(1.0, done / GRADUAL)
        for table in student.tables:
            table.lattice.strength = strength
        if step % REFRESH == 0:
            ranges.refresh(keep=done > SETTLED)
        pick = torch.randint(len(samples), (recipe.batch,), generator=order)
        given = torch.rand(recipe.batch, generator=order) < samples.given_share
        chosen = samples.take(torch.where(given, pick % samples.given, pick))
        student.capture = recipe.spread > 0
        value = loss(student(chosen.inputs), chosen.answers, chosen.targets)
        total = value + _norms(student)
        if recipe.spread:
            total = total + recipe.spread * _spread(student)
        student.capture = False
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 5.0)
        optimizer.step()
        for weight in student.weights.values():
            weight.keep_in_range()
        last = step == recipe.steps - 1
        if last or (strength == 1.0 and step % LOOK == LOOK - 1):
            ranges.refresh(keep=done > SETTLED)
            now, agreed = score(student, held, loss)
            if now < best.loss:
                best = Best(now, agreed, step, copy.deepcopy(student.state_dict()))
            progress(f"distill (loss {now:.4f}, agreement {agreed:.1%})", step + 1, recipe.steps)
    student.restore(best.state)
    progress("distill", recipe.steps, recipe.steps)
    return best


def _rate(done: float) -> float:
    """Warm up, then a cosine down to a hundredth."""
    if done < 0.02:
        return done / 0.02
    return 0.01 + 0.99 * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done))))


def _groups(student: Student, rate: float) -> list[dict[str, Any]]:
    scales = [p for n, p in student.named_parameters() if n.endswith("log_scale") and p.requires_grad]
    latent = [p for n, p in student.named_parameters() if n.endswith("latent")]
    return [
        {"params": latent, "lr": rate},
        {"params": scales, "lr": rate * 0.1},
        {"params": list(student.free), "lr": rate * 0.15},
        {"params": [t.lattice.moved for t in student.tables], "lr": rate},
    ]


def _spread(student: Student) -> torch.Tensor:
    """How much wider the accumulators range than their bulk: a lattice spends its points on all of it."""
    found = []
    for table in student.tables:
        z = student.captured[table.base]
        axis = table.lattice.axis
        columns = z.movedim(axis, -1).reshape(-1, z.shape[axis])
        spread = columns.std(dim=0) + 1e-3 * columns.std() + 1e-6
        span = columns.amax(dim=0) - columns.amin(dim=0)
        found.append(torch.relu(span / spread.detach() - 3.0).mean())
    return torch.stack(found).mean() if found else torch.zeros(())


def _norms(student: Student) -> torch.Tensor:
    """How far integer weights behind tables exceed the norm at which bootstraps get dearer."""
    found = [torch.zeros(())]
    for rows, limit in student.norms():
        norm = ((rows**2).sum(dim=1) + 1e-6).sqrt()
        found.append(torch.relu(norm / limit - 1.0).square().sum())
    return torch.stack(found).sum()


@torch.no_grad()
def score(student: Student, held: Samples, loss: Loss) -> tuple[float, float]:
    """Loss and agreement on held-back samples, over the same draws of noise every time."""
    state = torch.random.get_rng_state()
    losses, agreed = [], []
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        answers = student(held.inputs)
        losses.append(float(loss(answers, held.answers)))
        agreed.append(agreement(loss.kind, answers, held.answers))
    torch.random.set_rng_state(state)
    return sum(losses) / DRAWS, sum(agreed) / DRAWS
