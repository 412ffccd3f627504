"""What the passes share that read answers out of features: their options, the search, and what they tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ....analysis.outputs.classes import Kind
from ....ir.errors import DataError, UnsupportedError
from ....ir.level import Level
from ...framework.base import Context, option
from .judging import answers as answers_of
from .samples import FOLDS
from .samples import Answers as AnswersOf
from .search import Chosen, FeatureSearch

MIN_SAMPLES = 40
"""Samples to fit a readout to, and to judge it by."""


@dataclass(frozen=True)
class FeatureOptions:
    """The options of passes that read answers out of features, and what they share."""

    name: ClassVar[str]
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.QDQ)
    produces: ClassVar[Level | None] = Level.FLOAT
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    family: Literal["auto", "inputs", "cosines", "convolutions", "bins"] = option(
        "auto",
        help="Features to draw: cosines of random directions, averages of random filters (images), bins and"
        " products of two (few features), or none beside the inputs; auto: what loses least on inputs held"
        " back.",
    )
    loss: float = option(
        0.01,
        help="Most accuracy that may be lost, as expected by inputs that nothing was fitted to; for values"
        " twice that of R^2. The fewest features that hold it are taken, else those that lose about least.",
        low=0,
        high=1,
    )
    features: int = option(2048, help="Features to draw at most.", low=1, high=65536)
    seed: int = option(
        1, help="Seed of the features: the client draws the same again from it.", low=0, high=2**30
    )

    def enough(self, context: Context) -> Mapping[str, np.ndarray]:
        """The calibration data.

        Raises:
            DataError: There is none, or too little.
        """
        data = context.require_calibration(self.name)
        total = len(next(iter(data.values())))
        if total < MIN_SAMPLES:
            raise DataError(
                "features cannot be fitted to so few samples",
                found=f"{total} samples",
                allowed=f"{MIN_SAMPLES} or more; a few hundred are usual",
                do="give more calibration inputs; they need no labels",
            )
        return data

    def searched(
        self, model: ir.Model, answers: AnswersOf, kind: Kind, context: Context
    ) -> tuple[FeatureSearch, Chosen]:
        """Look for features of the inputs of ``model`` from which the answers can be read, and tell.

        Raises:
            DataError: There is no calibration data, or too little.
            UnsupportedError: No family of features takes such inputs.
        """
        data = self.enough(context)
        search = FeatureSearch(
            [v for v in model.graph.inputs if v.name in data],
            data,
            answers,
            kind,
            self.loss if kind == "classes" else 2 * self.loss,
            self.features,
            self.family,
            self.seed,
            context.progress,
        )
        found = search.run()
        if not found:
            raise UnsupportedError(
                "no features are known for these inputs",
                found=f"{search.width} numbers a sample, and family {self.family!r}",
                allowed="images, or up to 8192 numbers a sample; bins for up to 64",
                do="choose family=auto, or make fewer inputs of them before the network",
            )
        chosen = search.best(found)
        context.notes.append(_note(self.name, chosen, found, kind))
        context.findings.expected.append(answers_of(chosen.asked, kind, FOLDS).expectation)
        return search, chosen


def _note(name: str, chosen: Chosen, found: Sequence[Chosen], kind: Kind) -> str:
    lost = "accuracy" if kind == "classes" else "R^2"
    expected, best = chosen.asked.loss(kind), min(found, key=lambda c: c.asked.loss(kind))
    more = ""
    if best.asked.loss(kind) < expected:
        more = f"; {best.family} would lose {100 * best.asked.loss(kind):.1f}"
    own = f"computes {chosen.family}, which say nothing about the network, and " if chosen.family.size else ""
    lost = f"{100 * expected:.1f} points of {lost}"
    return (
        f"{name}: the client {own}encrypts {chosen.count} values; the circuit reads the answers out of"
        f" them without a bootstrap. That is expected to lose {lost} before quantization{more}"
    )
