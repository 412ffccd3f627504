"""Where circuits come from: backends by name, and artifacts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from warnings import catch_warnings, filterwarnings

import onnx_ir as ir

from . import artifact
from .artifact_parts import circuit_of, model_of
from .backends.base import Backend, Circuit
from .batches import Circuits, taken
from .binding import check_circuit, check_client, check_interface
from .ir.errors import ArtifactError, OnnxFheError
from .ir.partition import partition
from .manifest import Manifest


def read(path: str | os.PathLike[str]) -> tuple[Manifest, dict[str, bytes], ir.Model]:
    """The manifest, the files and the integer model of an artifact, which belong together.

    Raises:
        ArtifactError: There is no such file, or it is no artifact, damaged, or of a newer format.
    """
    manifest, files = artifact.read(path)
    try:
        model = model_of(files[artifact.INTEGER])
        parts = partition(model)
    except OnnxFheError as error:
        raise ArtifactError(
            "the integer model of the artifact cannot be read", file=str(path), found=error.what
        ) from error
    try:
        check_interface(model, manifest)
        check_client(parts, files)
    except ArtifactError as error:
        raise error.located(file=str(path)) from error.__cause__
    return manifest, files, model


@dataclass(frozen=True)
class FromFiles:
    """Makes the circuit of an artifact, when it is called.

    Attributes:
        manifest, files: The artifact.
        model: Its integer model.
        path: Where it was read from, for messages.
        samples: Samples of a call.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    model: ir.Model
    path: str = ""
    samples: int = 1

    def __call__(self) -> Circuit:
        """The circuit.

        Raises:
            ArtifactError: The backend cannot read it, or the manifest says something else of it.
        """
        try:
            circuit = circuit_of(
                find_backend(self.manifest.backend), taken(self.files, self.samples), self.model
            )
            check_circuit(circuit, self.manifest, self.samples)
        except ArtifactError as error:
            raise error.located(file=self.path) from error.__cause__
        return circuit


def circuits_of(manifest: Manifest, files: Mapping[str, bytes], model: ir.Model, path: str = "") -> Circuits:
    """The circuits of an artifact, each made when it is first needed; the arguments as in ``FromFiles``."""
    samples = [1, *(b.samples for b in manifest.batches)]
    return Circuits({n: FromFiles(manifest, files, model, path, n) for n in samples})


def find_backend(name: str) -> Backend:
    """The backend of that name, of an installed plug-in too.

    Raises:
        UserError: There is none.
        PluginError: It cannot be imported.
    """
    from .backends.registry import get_backend

    with catch_warnings():
        # What concrete-python imports says so on every start; its versions are pinned for that reason.
        filterwarnings("ignore", message=".*pkg_resources", category=UserWarning)
        return get_backend(name)
