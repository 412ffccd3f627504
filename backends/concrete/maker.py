"""What makes circuits of integer models: by the same maker, another text is another circuit."""

from __future__ import annotations

import functools
import hashlib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from ...ir.errors import ArtifactError
from ..concrete_runtime.store import Port, Ports

_ROOMS = ("ir", "passes", "backends")
_PACKAGES = ("concrete-python", "numpy", "onnx", "onnx-ir", "onnxruntime")


@functools.cache
def fingerprint() -> str:
    """A hash of all that a circuit's text depends on, besides its model."""
    found = hashlib.sha256()
    for name in _PACKAGES:
        found.update(f"{name} {version(name)}\n".encode())
    root = __name__.split(".", maxsplit=1)[0]
    for room in _ROOMS:
        for folder in sorted(import_module(f"{root}.{room}").__path__):
            for file in sorted(Path(folder).rglob("*.py")):
                found.update(file.relative_to(folder).as_posix().encode() + b"\n" + file.read_bytes())
    return found.hexdigest()


def is_circuit_of(
    mlir: str, ports: Ports, maker: str, inputs: tuple[Port, ...], outputs: tuple[Port, ...], text: str
) -> bool:
    """Whether a stored circuit is the one that its integer model makes here.

    Args:
        mlir, ports, maker: Parts of the stored circuit.
        inputs, outputs, text: What the model makes.

    Returns:
        False where another version wrote it, which may have said the same in other words.

    Raises:
        ArtifactError: It is another circuit.
    """
    same = mlir == text and (ports.inputs, ports.outputs) == (inputs, outputs)
    if not same and maker == fingerprint():
        raise ArtifactError(
            "the circuit of the artifact is not that of its integer model",
            found="another program" if mlir != text else "other inputs or outputs",
            allowed="the program that the integer model is lowered to",
            do="do not use this file, and compile the model again",
        )
    return same
