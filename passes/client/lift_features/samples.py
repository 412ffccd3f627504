"""Samples that a readout is fitted to and judged by, with the network's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ....analysis.augmentation.images import image_sizes
from ....analysis.augmentation.pool import pool

Answers = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""(samples, outputs) that the network gives for inputs by name."""
FOLDS = 4
"""Parts of the calibration inputs: each is asked of readouts that were fitted to the others."""
WANTED_SAMPLES = 16_000
"""Samples to fit to, made ones among them: several for each weight of the largest readout."""
MAX_ASKED = 1500
"""Inputs of a part, and samples made of them, that are asked."""


@dataclass(frozen=True)
class Part:
    """Some of the inputs, and samples made of them and of nothing else.

    Attributes:
        inputs: By name, samples on axis 0: the given ones first, in a random order.
        answers: (samples, outputs) of the network.
        given: How many were given.
    """

    inputs: Mapping[str, np.ndarray]
    answers: np.ndarray
    given: int

    @property
    def asked(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the given inputs to judge by, and of the made ones."""
        made = len(self.answers) - self.given
        return np.arange(min(self.given, MAX_ASKED)), self.given + np.arange(min(made, MAX_ASKED))


def parted(data: Mapping[str, np.ndarray], answers: Answers, seed: int) -> list[Part]:
    """``FOLDS`` parts, with mixed, noisy and shifted samples until there are ``WANTED_SAMPLES`` in all."""
    total = len(next(iter(data.values())))
    random = np.random.default_rng(seed)
    images = image_sizes(data)
    copies = WANTED_SAMPLES // total - 1
    found = []
    for chosen in np.array_split(random.permutation(total), FOLDS):
        inputs = {name: np.asarray(array)[chosen] for name, array in data.items()}
        if copies > 0:
            inputs = pool(inputs, copies, random, images, sparse=0.0)[0]
        found.append(Part(inputs, answers(inputs), len(chosen)))
    return found
