"""Comparing the classes of a circuit and the float network on every input that no weight was fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from ..analysis.augmentation.pool import split
from ..analysis.noise.noise import NoisyModel
from ..analysis.outputs.classes import foreseen_loss
from ..ir.batch_runner import Arrays
from ..ir.runtime import Session
from ..passes.compress.shrink.shrink import Shrink
from ..passes.distill.distill import Distill
from ..passes.framework.manager import PassManager
from ..passes.framework.pipeline import pass_name
from ..probabilities import probabilities
from ..scoring import predictions
from .metric import Answers
from .points import Paired

MAX_COMPARED_INPUTS = 2000
"""Calibration inputs that are compared: a standard error of a few thousandths, in seconds."""
FITTING = ("remove-layers", "remove-neurons", "prune")
"""Passes that fit weights to all calibration inputs, where they remove more than costs nothing; ``distill``
holds some back."""


@dataclass
class Comparer:
    """Knows what the float network says of the calibration inputs.

    Attributes:
        source: The float network.
        calibration: By input name, samples on axis 0.
        seed: Seed of the passes, which decides what ``distill`` holds back.
        validation: The inputs that are scored on, by name.
    """

    source: ir.Model
    calibration: Mapping[str, np.ndarray]
    seed: int
    validation: Mapping[str, np.ndarray] | None = None

    @cached_property
    def _seen(self) -> _Asked:
        return _Asked.of(self.source, self.calibration)

    @cached_property
    def _scored(self) -> _Asked | None:
        return None if self.validation is None else _Asked.of(self.source, self.validation)

    @property
    def total(self) -> int:
        """How many calibration inputs there are."""
        return len(next(iter(self.calibration.values())))

    def paired(
        self, draws: list[Answers], model: ir.Model, pipeline: str, p_error: float, has_labels: bool
    ) -> Paired | None:
        """Agreement with the float network; None where it has no classes.

        Args:
            draws: Answers to the validation inputs, for each draw of the noise.
            model: A model of the integer level.
            pipeline: What made it.
            p_error: Error of one lookup.
            has_labels: Whether the metric counts right labels.
        """
        wanted = predictions(draws[0].expected, self.source)
        if wanted is None:
            return None
        found = [np.asarray(predictions(d.outputs, self.source)) for d in draws]
        labels = draws[0].labels if has_labels else None
        lost = 0.0
        if labels is not None:
            lost = float(np.mean([(wanted == labels).sum() - (f == labels).sum() for f in found]))
        chosen = self.unseen(pipeline)
        differing, foreseen = self.differing(model, p_error, chosen)
        by_draw = [self._scored.foreseen(f) for f in found] if self._scored is not None else [None]
        return Paired(
            validation=len(wanted),
            validation_differing=float(np.mean([(f != wanted).sum() for f in found])),
            calibration=len(chosen),
            differing=differing,
            has_labels=has_labels,
            lost=lost,
            validation_foreseen=None if None in by_draw else float(np.mean(by_draw)),  # type: ignore[arg-type]
            foreseen=foreseen,
        )

    def unseen(self, pipeline: str) -> np.ndarray:
        """Indices of the calibration inputs that no pass of a pipeline fitted weights to."""
        total = self.total
        passes = PassManager.parse(pipeline).passes
        training = [p for p in passes if isinstance(p, (Distill, Shrink))]
        if training:
            last = training[-1]
            hold = last.settings.share(total) if isinstance(last, Shrink) else last.validation_share
            held = split(total, hold, np.random.default_rng(self.seed)).held
            return held[:MAX_COMPARED_INPUTS] if hold else held[:0]
        if any(pass_name(p) in FITTING and getattr(p, "ratio", 1.0) > 0 for p in passes):
            return np.arange(0)
        return np.arange(min(total, MAX_COMPARED_INPUTS))

    def differing(self, model: ir.Model, p_error: float, chosen: np.ndarray) -> tuple[float, float | None]:
        """How many of these calibration inputs have another class, with one draw of the noise; and what is
        foreseen to be lost with them.

        Args:
            model: A model of the integer level.
            p_error: Error of one lookup.
            chosen: Their indices.
        """
        if not len(chosen):
            return 0.0, 0.0
        data = {k: np.asarray(v)[chosen] for k, v in self.calibration.items()}
        found = predictions(NoisyModel(model, p_error).run(data, self.seed), self.source)
        assert found is not None
        return float((found != self._seen.classes[chosen]).sum()), self._seen.foreseen(found, chosen)


@dataclass(frozen=True)
class _Asked:
    """What the float network says of some inputs: (inputs) classes, and (inputs, classes) probabilities."""

    classes: np.ndarray
    likely: np.ndarray | None

    @classmethod
    def of(cls, source: ir.Model, data: Mapping[str, np.ndarray]) -> _Asked:
        answers: Arrays = Session(source).run_batched(data)
        return cls(np.asarray(predictions(answers, source)), probabilities(source, dict(data)))

    def foreseen(self, found: np.ndarray, chosen: np.ndarray | None = None) -> float | None:
        """What is lost with other classes (of the inputs ``chosen``), by the network's own probabilities."""
        if self.likely is None:
            return None
        chosen = np.arange(len(found)) if chosen is None else chosen
        return float(foreseen_loss(self.likely[chosen], self.classes[chosen], found).sum())
