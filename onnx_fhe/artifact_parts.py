"""The parts of an artifact as what they hold: circuit and integer model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from . import artifact
from .backends.base import Backend, Circuit
from .ir.errors import ArtifactError
from .ir.level import Level, level_of
from .ir.load import load as load_model


def files_of(circuit: Circuit) -> dict[str, bytes]:
    """What a circuit saves, by path."""
    with TemporaryDirectory(prefix="onnx-fhe-") as folder:
        root = Path(folder)
        circuit.save(root)
        return {
            f.relative_to(root).as_posix(): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()
        }


def circuit_of(backend: Backend, files: Mapping[str, bytes], model: ir.Model) -> Circuit:
    """The circuit that ``files`` hold.

    Raises:
        ArtifactError: The backend cannot read them.
    """
    with TemporaryDirectory(prefix="onnx-fhe-") as folder:
        root = Path(folder)
        for name, content in files.items():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return backend.load(root, model)


def model_at(content: bytes) -> ir.Model:
    """The model of any level that a file of an artifact holds.

    Raises:
        OnnxFheError: It is none.
    """
    with TemporaryDirectory(prefix="onnx-fhe-") as folder:
        file = Path(folder) / artifact.INTEGER
        file.write_bytes(content)
        return load_model(file)


def model_of(content: bytes) -> ir.Model:
    """The integer-level model that a file of an artifact holds.

    Raises:
        OnnxFheError: It is none.
    """
    model = model_at(content)
    if level_of(model) is not Level.INTEGER:
        raise ArtifactError("it is not of the integer level", found=str(level_of(model)))
    return model
