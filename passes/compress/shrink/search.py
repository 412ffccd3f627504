"""Which of some smaller networks is taken: the smallest that loses no more than was stated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from ....analysis.augmentation.pool import split
from ....analysis.cost.cost import estimate
from ....analysis.outputs.answers import Answers
from ....analysis.outputs.expectation import Expectation
from ....ir.errors import DataError, UnsupportedError
from ...framework.base import Context
from ...framework.manager import PassManager
from ...framework.presets import TO_TABLES
from ..remove_layers.search import bootstraps
from .folds import Fold, crossed
from .pace import Pace
from .settings import ShrinkSettings
from .sizes import BETWEEN, LARGE, NEXT, SMALL, USUAL, Size

AFTER_ROUNDING = "remove-constant-tables,analyze-bit-widths"
"""Passes behind ``insert-rounding``, whatever the network."""
MIN_JUDGING_SAMPLES = 60
"""Calibration samples from which on what is removed can be judged."""
MIN_TRAINING_SAMPLES = 200
"""Calibration samples that make training worth while."""
SMALLER_SHARE = 0.8
"""Bootstraps of a smaller network, as a share of the usual one's, below which it is tried as well."""
LARGER_SHARE = 1.1
"""Bootstraps of a larger network, as a share of the usual one's, above which it is tried as well."""
MAX_TRAINED_NETWORKS = 4
"""Networks that are trained at most."""
CAUTION_ERRORS = 0.5
"""Standard errors that the expected loss must stay below what is allowed: the best of several is lucky."""
UNTRAINED_NORM = 15
"""Largest 2-norm of integer weights of an untrained network, as in the preset ``balanced``."""
FINE_NORM = 64
"""The same where tables are finer."""
FINE_TABLE_BITS = (5, 6)
"""Bits of the finer tables, in the order in which they are tried."""
MAX_FINE_COST_RATIO = 3.0
"""How many times the complexity finer tables may cost."""
WELL_WITHIN = 0.5
"""A loss below this share of what is allowed has a smaller network tried."""
HOPELESSLY_PAST = 6.0
"""A loss above so many times what is allowed has no wider tables tried. One bit more may leave an eighth: an
MNIST MLP lost 3.1 % with 4 bits, and 0.4 % with 5."""


@dataclass(frozen=True)
class Tried:
    """A circuit that could be taken.

    Attributes:
        model: A model of the integer level.
        notes: Notes of the passes that made it.
        pipeline: These passes.
        found: What it is expected to lose.
    """

    model: ir.Model
    notes: list[str]
    pipeline: str
    found: Expectation


class Search:
    """Tries smaller networks.

    Args:
        settings: What was asked for.
        model: Float level; not changed.
        context: Calibration data and the network as imported.
    """

    def __init__(self, settings: ShrinkSettings, model: ir.Model, context: Context) -> None:
        self.settings, self.model = settings, model
        findings = replace(context.findings, unfitted=[])
        self.context = replace(context, source=context.source or model, findings=findings)
        data = context.require_calibration("shrink")
        self.total = len(next(iter(data.values())))
        self.hold = settings.share(self.total)
        parts = split(self.total, self.hold, np.random.default_rng(context.seed))
        # So few samples are asked in turns: every one judges, and every one is fitted to in the end.
        self.turns = MIN_JUDGING_SAMPLES <= self.total < MIN_TRAINING_SAMPLES
        self.folds = (
            crossed(self.context, self.total) if self.turns else [Fold(self.context, parts.train, parts.held)]
        )
        self.fitting = (
            self.context if self.turns or self.total < MIN_JUDGING_SAMPLES else self.folds[0].fitting
        )
        self.why_untrained = ""
        self.told: list[str] = []
        self._removed: dict[tuple[Size, int], tuple[ir.Model, list[str]]] = {}

    def run(self) -> Tried:
        """The network to take."""
        if self.total < MIN_JUDGING_SAMPLES:
            return self.plain(f"{self.total} calibration samples are too few to judge what is removed by")
        pace = Pace.of(self.removed(USUAL)[0])
        if self.total < MIN_TRAINING_SAMPLES:
            self.why_untrained = f"{self.total} calibration samples are too few to train on"
        elif pace.too_long:
            self.why_untrained = f"training would take about {pace.seconds:.0f} s"
        if self.why_untrained and bootstraps(self.removed(USUAL)[0]) >= bootstraps(self.model):
            return self.plain(f"nothing can go at little loss, and {self.why_untrained}")
        if not self.why_untrained:
            self.told.append(
                f"shrink: training takes about {pace.seconds:.0f} s of one core for each network that is"
                f" tried, {MAX_TRAINED_NETWORKS} at most"
            )
        tried: list[Tried] = []
        for found in self._candidates(tried):
            tried.append(found)
            self.told.append(self._told(found))
        kept = [t for t in tried if self.holds(t)]
        if kept:
            return min(kept, key=lambda t: estimate(t.model).complexity)
        least = min(tried, key=lambda t: t.found.loss)
        plain = self.plain(
            f"smaller networks would lose {least.found.loss:.1%} at least, by the {least.found.samples}"
            " calibration samples that were held back, where"
            f" {self.settings.allowed(least.found.kind):.1%} are allowed"
        )
        taken = plain if plain.found.loss <= least.found.loss else least
        if not self.holds(taken):
            self.told.append(
                f"shrink: the whole network untrained loses {plain.found.loss:.1%} by the same samples, more"
                f" than {self.settings.allowed(plain.found.kind):.1%} too: --preset accurate has wider tables"
            )
        return taken

    def _candidates(self, tried: list[Tried]) -> Iterator[Tried]:
        """One after the other; what was made of the last is at the end of ``tried``."""
        usual = bootstraps(self.removed(USUAL)[0])
        if self.why_untrained:
            yield self.untrained(USUAL)
            if not self.holds(tried[-1]) and bootstraps(self.removed(LARGE)[0]) > LARGER_SHARE * usual:
                yield self.untrained(LARGE)
            return
        try:
            yield self.student(USUAL, 4)
        except (UnsupportedError, DataError) as error:
            self.why_untrained = f"{error.what} (found {error.found})"
            yield from self._candidates(tried)
            return
        first = self._loss_share(tried[-1])
        if first <= WELL_WITHIN and bootstraps(self.removed(SMALL)[0]) < SMALLER_SHARE * usual:
            yield self.student(SMALL, 4)
        if self.holds(tried[0]):
            return
        if not usual:  # a linear network: it has no tables that could be wider
            if bootstraps(self.removed(BETWEEN)[0]):
                yield self.student(BETWEEN, 5)
        elif first <= HOPELESSLY_PAST:
            yield self.student(USUAL, 5)
            yield from self._smaller(tried)
        if (
            not any(self.holds(t) for t in tried)
            and bootstraps(self.removed(LARGE)[0]) > LARGER_SHARE * usual
        ):
            yield self.student(LARGE, 5)
        if not any(self.holds(t) for t in tried):
            yield self.untrained(USUAL)

    def _smaller(self, tried: list[Tried]) -> Iterator[Tried]:
        """Smaller networks with tables of 5 bits, as long as the last loses well within what is allowed."""
        last = bootstraps(self.removed(USUAL)[0])
        for size in NEXT:
            if self._loss_share(tried[-1]) > WELL_WITHIN:
                return
            count = bootstraps(self.removed(size)[0])
            if count and count < SMALLER_SHARE * last:
                last = count
                yield self.student(size, 5)

    def _loss_share(self, tried: Tried) -> float:
        """What is lost, as a share of what is allowed."""
        return tried.found.loss / max(self.settings.allowed(tried.found.kind), 1e-9)

    def _told(self, tried: Tried) -> str:
        """What was found of a network, in words."""
        price, what = estimate(tried.model), tried.found
        share = f"{what.value:.1%} of the predictions" if what.kind == "classes" else f"R^2 {what.value:.3f}"
        allowed = "within" if self.holds(tried) else "past"
        return (
            f"shrink: {price.bootstraps} bootstraps, {price.complexity / 1e9:.2f} G by estimate: {share}"
            f" expected on new inputs, a loss of {what.loss:.2%} (+- {what.error:.2%}), {allowed}"
            f" {self.settings.allowed(what.kind):.2%}"
        )

    def holds(self, tried: Tried) -> bool:
        """Whether it loses no more than is allowed."""
        found = tried.found
        return found.loss + CAUTION_ERRORS * found.error <= self.settings.allowed(found.kind)

    def removed(self, size: Size, fitting: Context | None = None) -> tuple[ir.Model, list[str]]:
        """The float model without what that size removes, fitted on what is not held back."""
        fitting = fitting or self.fitting
        key = size, id(fitting)
        if key not in self._removed:
            notes: list[str] = []
            done = PassManager.parse(size.text).run(self.model, fitting.with_notes(notes))
            self._removed[key] = done.model, notes
        return self._removed[key]

    def student(self, size: Size, bits: int) -> Tried:
        """A trained network of that size, with tables of so many bits.

        Raises:
            UnsupportedError: It cannot be trained.
        """
        pace, settings = Pace.of(self.removed(size)[0]), self.settings
        first = (
            f"quantize{{weights={settings.weights} activations={settings.activations} max-weight-norm=15}}"
        )
        second = (
            f"distill{{rounding={bits} steps={pace.steps} batch={pace.batch}"
            f" validation-share={self.hold:g}}},"
            f"{TO_TABLES},"
            f"insert-rounding{{bits={bits}}},{AFTER_ROUNDING}"
        )
        return self._made(size, first, second)

    def untrained(self, size: Size) -> Tried:
        """A network of that size, as balanced makes it."""
        return self._made(size, *self._balanced(UNTRAINED_NORM))

    def plain(self, why: str) -> Tried:
        """The whole network, as balanced makes it; finer, with wider tables, where that loses too much."""
        notes = [f"shrink: nothing was removed or trained: {why}"]
        first = best = self._made(None, *self._balanced(UNTRAINED_NORM), notes)
        for bits in FINE_TABLE_BITS:
            if self.holds(best):
                break
            finer = self._made(None, *self._balanced(FINE_NORM, f"bits={bits} range-fill=full"), notes)
            affordable = MAX_FINE_COST_RATIO * estimate(first.model).complexity
            if finer.found.loss < best.found.loss and estimate(finer.model).complexity <= affordable:
                best = finer
        return best

    def _made(self, size: Size | None, first: str, second: str, notes: Sequence[str] = ()) -> Tried:
        """Run passes, and judge what they make.

        Args:
            size: What is removed before; None for nothing.
            first: Passes that fit weights: they do not see what is held back.
            second: Passes that hold it back themselves, or fit none.
            notes: Notes that stand before their own.
        """
        model, told = self._fitted(size, first, second, self.fitting, self.context)
        asked = [model]
        if self.turns:
            asked = [self._fitted(size, first, second, f.fitting, f.fitting)[0] for f in self.folds]
        answers = [fold.judge.ask(m) for fold, m in zip(self.folds, asked, strict=True)]
        text = ",".join(filter(None, ["" if size is None else size.text, first, second]))
        return Tried(model, [*notes, *told], text, Answers.together(answers).expectation)

    def _fitted(
        self, size: Size | None, first: str, second: str, fitting: Context, context: Context
    ) -> tuple[ir.Model, list[str]]:
        """What passes make, the first of them with the samples of ``fitting``; and their notes."""
        model, told = (self.model, []) if size is None else self.removed(size, fitting)
        told = [*told]
        quantized = PassManager.parse(first).run(model, fitting.with_notes(told))
        rest = replace(quantized.context, calibration=context.calibration)
        return PassManager.parse(second).run(quantized.model, rest, in_place=True).model, told

    def _balanced(self, norm: int, rounding: str = "") -> tuple[str, str]:
        # Rounding may take half of what values may lose; classes are watched by insert-rounding itself.
        kind = self.folds[0].judge.kind
        tolerance = "" if kind == "classes" else f" tolerance={self.settings.allowed(kind) / 2:g}"
        rounding = rounding or f"bits=auto{tolerance}"
        return (
            f"quantize{{weights=6 activations=8 max-weight-norm={norm}}}",
            f"{TO_TABLES},insert-rounding{{{rounding}}},{AFTER_ROUNDING}",
        )
