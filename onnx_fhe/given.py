"""What is compiled, and the data for it, as they were given."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from .fidelity.samples import data_warnings, label_warnings
from .input_coercion import DataLike, as_data
from .ir.batch_runner import Arrays
from .ir.guard import FileLimits
from .ir.load import load
from .ir.matching import calibration_for
from .ir.runtime import to_proto
from .ir.state import ModelState
from .manifest import Source


@dataclass(frozen=True)
class Given:
    """What is compiled, and the data for it.

    Attributes:
        model: As loaded.
        source: Where it is from.
        arrays: Calibration data by input name; None without.
        labels: As they were given; ``classes`` are the same where they are classes of the network.
        file: Name of the file of the data.
        warnings: What is wrong with data and labels.
    """

    model: ir.Model
    source: Source
    arrays: Arrays | None
    labels: np.ndarray | None
    classes: np.ndarray | None
    file: str
    warnings: tuple[str, ...]


def read_given(
    model: ir.Model | str | os.PathLike[str],
    calibration: DataLike | None,
    limits: FileLimits | None,
    bind: Mapping[str, int],
    any_model: bool = False,
) -> Given:
    """Load the model, and bring the calibration data into the form that it takes.

    Args:
        model: A file, or what ``load`` returned.
        calibration: As ``compile_model`` takes it.
        limits: How much the model file may hold.
        bind: Sizes of free axes of the inputs, by name.
        any_model: Trees and kernel machines are loaded, too.

    Raises:
        ModelError: The model cannot be read.
        DataError: The data does not fit it.
    """
    data = None if calibration is None else as_data(calibration)
    shapes = {} if data is None else {k: a.shape for k, a in data.arrays.items()}
    given = (
        model
        if isinstance(model, ir.Model)
        else load(model, limits, bind=bind, shapes=shapes, any_model=any_model)
    )
    source = _source(model)
    if data is None:
        return Given(given, source, None, None, None, "", ())
    arrays = calibration_for(given, data)
    wrong = label_warnings(given, data.labels)
    told = (*data_warnings(arrays), *wrong)
    return Given(given, source, arrays, data.labels, None if wrong else data.labels, data.file, told)


def _source(model: ir.Model | str | os.PathLike[str]) -> Source:
    if isinstance(model, ir.Model):
        state = ModelState.of(model)
        if state.sha256 is not None:
            return Source(state.file, state.sha256)
        content = to_proto(model).SerializeToString(deterministic=True)
        return Source(state.file, hashlib.sha256(content).hexdigest())
    content = Path(model).read_bytes()
    return Source(Path(model).name, hashlib.sha256(content).hexdigest())
