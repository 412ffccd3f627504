"""Whether the parts of an artifact belong together: hashes say nothing about who put them there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np
import onnx
import onnx_ir as ir

from . import artifact
from .artifact_parts import model_at
from .backends.base import Circuit
from .ir.errors import ArtifactError, OnnxFheError
from .ir.partition import Parts
from .ir.runtime import Session
from .ir.sampling import random_inputs
from .ir.save import serialize
from .manifest import Manifest

COMPARED_SAMPLES = 32
"""Random inputs on which two models are compared."""


def check_circuit(circuit: Circuit, manifest: Manifest, samples: int = 1) -> None:
    """Hold what a circuit's files say of it against the manifest.

    Raises:
        ArtifactError: They differ.
    """
    if (found := circuit.recorded()) is None:
        return
    statistics, options = found
    known = {b.samples: b.statistics for b in manifest.batches} | {1: manifest.statistics}
    for what, here, there in (
        ("p_error", options.p_error, manifest.p_error),
        ("global_p_error", options.global_p_error, manifest.global_p_error),
        ("security level", options.security_level, manifest.security_level),
        ("costs", statistics, known[samples]),
    ):
        if here != there:
            raise ArtifactError(
                "the circuit of the artifact is not the one that its manifest describes",
                found=f"other {what}" if what == "costs" else f"{what} {here} instead of {there}",
                do="compile the model again",
            )


def check_interface(model: ir.Model, manifest: Manifest) -> None:
    """Hold the integer model against the interface that the manifest describes.

    Raises:
        ArtifactError: They differ.
    """
    for what, values, described in (
        ("inputs", model.graph.inputs, manifest.inputs),
        ("outputs", model.graph.outputs, manifest.outputs),
    ):
        here, there = [str(v.name) for v in values], [p.name for p in described]
        if here != there:
            raise ArtifactError(
                "the integer model of the artifact is not the one that its manifest describes",
                found=f"{what} {', '.join(here)}",
                allowed=", ".join(there),
                do="compile the model again",
            )


def check_client(parts: Parts, files: Mapping[str, bytes]) -> None:
    """Hold the client's two models against those of the integer model.

    What another version wrote may say the same in other words, so models are compared by what they compute.

    Raises:
        ArtifactError: They compute something else.
    """
    for name, own in ((artifact.PROLOGUE, parts.prologue), (artifact.EPILOGUE, parts.epilogue)):
        content = serialize(own)
        if files[name] != content and not _computes(files[name], onnx.load_model_from_string(content)):
            raise ArtifactError(
                "the client's part of the artifact is not that of its integer model",
                found=f"another {PurePosixPath(name).name}",
                do="do not use this file, and compile the model again",
            )


def _computes(content: bytes, wanted: onnx.ModelProto) -> bool:
    """Whether a file's model computes on random inputs what another one does."""
    data = random_inputs(list(wanted.graph.input), COMPARED_SAMPLES)
    # Nobody knows here what is large to this network.
    sizes = np.logspace(-3, 6, COMPARED_SAMPLES, dtype=np.float32)
    data = {k: v * sizes.reshape(-1, *[1] * (v.ndim - 1)) if _is_scalable(v) else v for k, v in data.items()}
    try:
        session = Session(model_at(content))
        if set(session.inputs) != set(data):
            return False
        found = session.run_batched(data)
    except OnnxFheError:
        return False
    expected = Session(wanted).run_batched(data)
    return list(found) == list(expected) and all(
        np.array_equal(found[k], v, equal_nan=v.dtype.kind == "f") for k, v in expected.items()
    )


def _is_scalable(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and array.ndim > 0 and len(array) == COMPARED_SAMPLES
