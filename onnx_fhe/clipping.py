"""The client's first step: quantize the inputs, and count what had to be clipped to the calibrated range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .ir.batch_runner import Arrays, BatchRunner


@dataclass(frozen=True)
class ClipReport:
    """Input values outside the calibrated range; they were clipped to it before encryption.

    Attributes:
        values: Their number.
        samples: Number of samples with at least one.
        by_value: Their number for each tensor that is quantized, by name; only those that have any.
    """

    values: int = 0
    samples: int = 0
    by_value: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EncryptedRange:
    """The range of a tensor that is encrypted.

    Attributes:
        name: Name of the Encrypt output.
        low, high: Its integers (inclusive).
        source: Name of the floats that are quantized to it; the name of the tensor itself where no quantizer
            is found.
        lows, highs: The floats that ``low`` and ``high`` stand for, which broadcast against those of the
            source; None where no quantizer is found.
    """

    name: str
    low: int
    high: int
    source: str
    lows: np.ndarray | None = None
    highs: np.ndarray | None = None


class QuantizingRunner:
    """Runs a prologue.

    Args:
        runner: The prologue; it returns every tensor that is encrypted, and every source that is no input.
        ranges: What is encrypted.
    """

    def __init__(self, runner: BatchRunner, ranges: Sequence[EncryptedRange]) -> None:
        self._runner = runner
        self._ranges = tuple(ranges)

    def run(self, data: Mapping[str, np.ndarray]) -> tuple[Arrays, ClipReport]:
        """Quantize ``data``.

        Args:
            data: Arrays by input name, samples on axis 0.

        Returns:
            int64 arrays by Encrypt output name, inside the range that each Encrypt declares, and what was
            clipped: values further outside the range that the integers stand for than rounding takes them.
        """
        found = self._runner.run_batched(data)
        total = len(next(iter(data.values())))
        outside: dict[str, np.ndarray] = {}
        values = {}
        for known in self._ranges:
            integers = np.rint(found[known.name])
            if known.lows is None or known.highs is None:
                wrong = (integers < known.low) | (integers > known.high)
            else:
                given = data[known.source] if known.source in data else found[known.source]
                array = given.astype(np.float64)
                wrong = (array < known.lows) | (array > known.highs)
            # Two Encrypts may share one quantizer: counted once.
            outside[known.source] = wrong.reshape(total, -1).sum(axis=1)
            values[known.name] = np.clip(integers, known.low, known.high).astype(np.int64)
        by_sample = np.sum(list(outside.values()), axis=0)
        by_value = {name: int(counts.sum()) for name, counts in outside.items() if counts.any()}
        return values, ClipReport(int(by_sample.sum()), int(np.count_nonzero(by_sample)), by_value)
