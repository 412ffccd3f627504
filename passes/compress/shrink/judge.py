"""Judging what a circuit loses on new inputs, by calibration inputs that no weight was fitted to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....analysis.noise.noise import NoisyModel
from ....analysis.outputs.classes import Kind, computed, foreseen_loss, kind_of, scores
from ....analysis.outputs.expectation import Expectation
from ....ir.runtime import Session
from ...distill.training.data import blended

MIXTURE_SHARE = 0.9
"""Share of the first input in a mixture of two. Networks are surer of inputs that they were trained on than
of others; of such mixtures they are a little less sure (measured beside test data on five networks)."""
MIXTURES_PER_INPUT = 4
"""Mixtures that are made of each input."""
Z_95 = 1.96
"""Standard errors to either side of an interval of 95 %."""
BOOTSTRAP_DRAWS = 400
"""Resamplings (statistical bootstrap) for the interval of R^2."""


@dataclass(frozen=True)
class Answers:
    """Outputs of circuits on inputs that were held back from their fitting, beside the network's.

    Attributes:
        kind: Kind of the outputs.
        first: (inputs) 1 where the class is the network's; or (outputs, inputs) squared errors of values.
        second: (inputs) loss of accuracy; or (outputs, inputs) values of the network, squared deviations.
        folds: Circuits: each input was held back from its own.
    """

    kind: Kind
    first: np.ndarray
    second: np.ndarray
    folds: int = 1

    @classmethod
    def together(cls, answers: Sequence[Answers]) -> Answers:
        """Those of one circuit after the other, each with its own inputs."""
        first, second = (
            np.concatenate([getattr(a, name) for a in answers], axis=-1) for name in ("first", "second")
        )
        return cls(answers[0].kind, first, second, sum(a.folds for a in answers))

    @property
    def expectation(self) -> Expectation:
        """What is expected on new inputs."""
        count = self.first.shape[-1]
        if self.kind == "classes":
            agreement = float(self.first.mean())
            low, high = wilson(agreement, count)
            error = float(self.second.std() / math.sqrt(count))
            loss = float(self.second.mean())
            return Expectation("classes", count, agreement, low, high, loss, error, self.folds)
        drawn = np.random.default_rng(0).integers(count, size=(BOOTSTRAP_DRAWS, count))
        of_all = float(self._r2(np.arange(count)[None])[0])
        low, high = (float(q) for q in np.quantile(self._r2(drawn), [0.025, 0.975]))
        error = (high - low) / (2 * Z_95)
        return Expectation("values", count, of_all, low, high, 1.0 - of_all, error, self.folds)

    def _r2(self, drawn: np.ndarray) -> np.ndarray:
        """R^2 of all outputs together, each in its own variance, for each row of indices."""
        lost = [
            e[drawn].mean(axis=1) / (s[drawn].mean(axis=1) + 1e-12)
            for e, s in zip(self.first, self.second, strict=True)
        ]
        return np.asarray(1.0 - np.mean(lost, axis=0))


class Judge:
    """Knows what the network says of the inputs that were held back, and of mixtures of them.

    Args:
        source: The network as imported.
        data: Calibration inputs by name.
        held: Indices of those that nothing is fitted to.
        seed: Seed of the mixtures.
        p_error: Tolerated error of a lookup.
        kind: Kind of the outputs; by default what those inputs make of it.
    """

    def __init__(
        self,
        source: ir.Model,
        data: Mapping[str, np.ndarray],
        held: np.ndarray,
        seed: int,
        p_error: float,
        kind: Kind | None = None,
    ) -> None:
        self.held, self.p_error = held, p_error
        kept = {k: np.asarray(v)[held] for k, v in data.items()}
        asked = scores(source)
        first = _answers(source, asked, kept)
        self.kind = kind or kind_of(first, asked, computed(source))
        self.inputs = kept
        if self.kind == "classes":
            made = blended(kept, MIXTURE_SHARE, MIXTURES_PER_INPUT, np.random.default_rng(seed))
            self.inputs = {k: np.concatenate([v, made[k]]) for k, v in kept.items()}
            first = _answers(source, asked, self.inputs)
        self.scores = first[0]
        self._names = [str(o.name) for o in computed(source)]
        self.outputs = list(Session(source, self._names).run_batched(self.inputs).values())

    def expect(self, model: ir.Model) -> Expectation:
        """What a circuit is expected to lose.

        Args:
            model: A model of the integer level.
        """
        return self.ask(model).expectation

    def ask(self, model: ir.Model) -> Answers:
        """What a circuit says of the inputs.

        Args:
            model: A model of the integer level.
        """
        results = NoisyModel(model, self.p_error).run(self.inputs)
        found = [results[name] for name in self._names]
        return self._classes(found[0]) if self.kind == "classes" else self._values(found)

    def _classes(self, found: np.ndarray) -> Answers:
        count = len(self.held)
        wanted, given = _class_of(self.outputs[0]), _class_of(found)
        same = wanted == given
        shifted = self.scores - self.scores.max(axis=1, keepdims=True)
        likely = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        lost = _halves(foreseen_loss(likely, wanted, given), count)
        return Answers("classes", _halves(same.astype(np.float64), count), lost)

    def _values(self, found: list[np.ndarray]) -> Answers:
        count = len(self.held)
        errors, spreads = [], []
        for wanted, given in zip(self.outputs, found, strict=True):
            flat = wanted.reshape(count, -1).astype(np.float64)
            errors.append(((given.reshape(count, -1) - flat) ** 2).mean(axis=1))
            spreads.append(((flat - flat.mean(axis=0)) ** 2).mean(axis=1))
        return Answers("values", np.stack(errors), np.stack(spreads))


def _answers(source: ir.Model, asked: list[ir.Value], data: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return list(Session(source, [str(v.name) for v in asked]).run_batched(data).values())


def _class_of(output: np.ndarray) -> np.ndarray:
    flat = output.reshape(len(output), -1)
    return np.asarray(flat.argmax(axis=1) if flat.shape[1] > 1 else np.rint(flat[:, 0]).astype(np.int64))


def _halves(values: np.ndarray, count: int) -> np.ndarray:
    """For each input the mean of what it gives and of what its mixtures do."""
    return np.asarray((values[:count] + values[count:].reshape(-1, count).mean(axis=0)) / 2)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Interval of a share (Wilson, "Probable inference, the law of succession", 1927)."""
    spread = Z_95 * Z_95 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
