"""The model that is tuned, and the data that it is calibrated, scored and reported on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..input_coercion import DataLike, as_data
from ..ir.batch_runner import Arrays
from ..ir.calibration import Calibration
from ..ir.data import Data
from ..ir.errors import DataError
from ..ir.guard import FileLimits
from ..ir.load import load
from ..ir.matching import calibration_for
from ..ir.runtime import Session
from ..program import Program
from .frontier import TestReport
from .metric import Answers, Metric, standard_error


class Subject:
    """Model and data, matched with each other.

    Args:
        model: An ONNX file, or what ``load`` returned.
        calibration: Typical inputs.
        data: The validation samples.
        limits, bind: As for ``load``.

    Attributes:
        model: The model, loaded.
        raw_calibration: As it was given.
        calibration: Typical inputs, with their labels where they are known.
        data: Arrays by input name, samples on axis 0.
        labels: (samples) of ``data``, where known.
        samples: Validation samples.
        floats: What the float model answers to them.

    Raises:
        ModelError, DataError: They cannot be read, or do not fit each other.
    """

    def __init__(
        self,
        model: ir.Model | str | os.PathLike[str],
        calibration: DataLike,
        data: DataLike,
        limits: FileLimits | None,
        bind: Mapping[str, int] | None,
    ) -> None:
        self.raw_calibration, scored = as_data(calibration), as_data(data)
        shapes = {k: a.shape for k, a in self.raw_calibration.arrays.items()}
        self.model = (
            model if isinstance(model, ir.Model) else load(model, limits, bind=bind or {}, shapes=shapes)
        )
        typical = calibration_for(self.model, self.raw_calibration)
        self.calibration = Calibration(typical, self.raw_calibration.labels)
        self.data, self.labels = calibration_for(self.model, scored), labels_of(scored)
        self.samples = len(next(iter(self.data.values())))
        self.floats = self.answers(self.data, self.labels)

    def answers(self, data: Arrays, labels: np.ndarray | None) -> Answers:
        """Outputs of the float model on some data, with the labels."""
        expected = Session(self.model).run_batched(data)
        return Answers(expected, labels, expected, self.model)

    def report(self, data: Data, metric: Metric, program: Program) -> TestReport:
        """What a circuit does on other data."""
        arrays, labels = calibration_for(self.model, data), labels_of(data)
        floats = self.answers(arrays, labels)
        mine = replace(floats, outputs=program.simulate(arrays).outputs)
        error = None
        if metric.each is not None:
            error = standard_error(metric.each(mine), metric.each(floats))
        return TestReport(
            file=Path(data.file).name,
            samples=len(next(iter(arrays.values()))),
            float_score=metric.score(floats),
            score=metric.score(mine),
            score_error=error,
        )


def labels_of(data: Data) -> np.ndarray | None:
    """The labels of data, one for each sample.

    Raises:
        DataError: There are more or fewer.
    """
    samples = {len(a) for a in data.arrays.values() if a.ndim}
    if data.labels is not None and len(data.labels) not in samples:
        raise DataError(
            "labels and samples differ in number",
            file=data.file,
            found=f"{len(data.labels)} labels",
            allowed=f"{', '.join(map(str, sorted(samples)))}, one for each sample",
        )
    return data.labels
