"""Judging what a circuit loses on new inputs, by calibration inputs that no weight was fitted to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ....analysis.augmentation.pool import blended
from ....analysis.noise.noise import NoisyModel
from ....analysis.outputs.answers import Answers
from ....analysis.outputs.classes import Kind, computed, foreseen_loss, kind_of, scores
from ....analysis.outputs.expectation import Expectation
from ....ir.runtime import Session

MIXTURE_SHARE = 0.9
"""Share of the first input in a mixture of two. Networks are surer of inputs that they were trained on than
of others; of such mixtures they are a little less sure (measured beside test data on five networks)."""
MIXTURES_PER_INPUT = 4
"""Mixtures that are made of each input."""


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
