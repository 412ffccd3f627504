"""Typical inputs of a network, and what their classes are, where that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from typing_extensions import Self


@dataclass(frozen=True, eq=False)
class Calibration(Mapping[str, np.ndarray]):
    """Arrays by input name with the labels of their samples, which stay together when samples are chosen.

    It is a mapping of its arrays: what needs no labels takes it, or any other mapping.

    Attributes:
        arrays: Arrays by input name, samples on axis 0.
        labels: (samples) class of each sample, or another number; None where they are not known.
    """

    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], labels_of: Mapping[str, np.ndarray] | None = None) -> Self:
        """Arrays as calibration data.

        Args:
            arrays: Without labels, unless they are calibration data already.
            labels_of: Calibration data of the same samples, whose labels are taken.
        """
        known = arrays if labels_of is None else labels_of
        return cls(arrays, known.labels if isinstance(known, Calibration) else None)

    def take(self, chosen: np.ndarray) -> Self:
        """Some of the samples.

        Args:
            chosen: Their indices, or (samples) whether each is one of them.
        """
        labels = None if self.labels is None else self.labels[chosen]
        return type(self)({name: np.asarray(a)[chosen] for name, a in self.arrays.items()}, labels)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)
