"""Splitting calibration samples: a network is fitted to some, and judged by those that it never saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx_ir as ir

from ....analysis.outputs.classes import Kind
from ....ir.calibration import Calibration
from ...framework.base import Context
from .judge import Judge

FOLDS = 4
"""Parts of samples that are too few to hold a share of them back for good (4 to 10 are usual: Kohavi, A
study of cross-validation and bootstrap for accuracy estimation and model selection, 1995; each costs a
search)."""


@dataclass(frozen=True)
class Fold:
    """One split of the calibration samples.

    Attributes:
        context: With all calibration samples, and the network as imported.
        train, held: Indices of the samples to fit to, and to judge by.
        kind: Kind of the outputs, where more samples tell it than those that are held back.
    """

    context: Context
    train: np.ndarray
    held: np.ndarray
    kind: Kind | None = None

    @cached_property
    def fitting(self) -> Context:
        """The context with the samples to fit to alone."""
        data = Calibration.of(self.context.calibration or {})
        return replace(self.context, calibration=data.take(self.train))

    @cached_property
    def judge(self) -> Judge:
        """Knows what the network says of the samples that are held back."""
        source: ir.Model | None = self.context.source
        assert source is not None
        data = self.context.calibration or {}
        return Judge(source, data, self.held, self.context.seed, self.context.target.p_error, self.kind)


def crossed(context: Context, total: int) -> list[Fold]:
    """``FOLDS`` splits of ``total`` samples: each sample is held back in one of them."""
    order = np.random.default_rng(context.seed).permutation(total)
    parts = [np.sort(part) for part in np.array_split(order, FOLDS)]
    kind = Fold(context, order, order).judge.kind
    return [Fold(context, np.setdiff1d(order, part), part, kind) for part in parts]
