"""A run of a circuit beside the network that it was made from, on the same samples."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ..ir.batch_runner import Arrays
from ..ir.data import Data
from ..ir.errors import UserError
from ..ir.load import load
from ..ir.matching import calibration_for
from ..ir.runtime import Session
from ..manifest import Manifest
from ..program import Program
from ..running import Result
from ..scoring import predictions
from .measure import compare
from .words import headline


def network_of(manifest: Manifest, file: Path, data: Data) -> ir.Model:
    """The network that a circuit was made from.

    Raises:
        UserError: The file is another one.
        ModelError: It cannot be read.
    """
    bind = manifest.record.bind if manifest.record is not None else {}
    network = load(file, bind=bind, shapes={k: a.shape for k, a in data.arrays.items()})
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != manifest.source.sha256:
        raise UserError(
            "this is not the network that was compiled",
            file=str(file),
            found=f"SHA-256 {found}",
            allowed=f"{manifest.source.file or 'the model'}, SHA-256 {manifest.source.sha256}",
        )
    return network


def against(
    network: ir.Model, program: Program, result: Result, data: Data, labels: np.ndarray | None
) -> dict[str, Any]:
    """What the network makes of the same samples, and how the circuit compares.

    Args:
        network: As it was imported.
        program: The circuit.
        result: What it computed.
        data: What it computed that of.
        labels: (samples), where they are known and of use.
    """
    arrays = {k: v[: result.samples] for k, v in calibration_for(network, data).items()}
    labels = None if labels is None else labels[: result.samples]
    outputs = Session(network).run_batched(arrays)
    found = compare(outputs, result.outputs, program.integer_model, labels)
    return {
        "accuracy": None if found.classes is None else found.classes.network_accuracy,
        "agreement": None if found.classes is None else found.classes.agreement,
        "outputs": found.outputs,
        "values": _fit(outputs, labels, network),
        "headline": headline(found, result.samples, result.samples, "samples"),
    }


def values_against_labels(
    result: Result, labels: np.ndarray | None, model: ir.Model
) -> dict[str, float] | None:
    """How well a network of one value a sample meets its labels; None for classes, and without labels."""
    return _fit(result.outputs, None if labels is None else labels[: result.samples], model)


def _fit(outputs: Arrays, labels: np.ndarray | None, model: ir.Model) -> dict[str, float] | None:
    if labels is None or predictions(outputs, model) is not None:
        return None
    columns = [a.reshape(len(a), -1) for a in outputs.values() if a.dtype.kind == "f"]
    single = [a[:, 0].astype(np.float64) for a in columns if a.shape == (len(labels), 1)]
    if not single:
        return None
    wanted = labels.astype(np.float64)
    error, spread = single[0] - wanted, float(((wanted - wanted.mean()) ** 2).mean())
    return {
        "r2": 1 - float((error**2).mean()) / spread if spread else float("nan"),
        "mean_error": float(np.abs(error).mean()),
    }
