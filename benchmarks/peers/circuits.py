"""Which circuits of ours are compared: presets, pipelines, and what `tune` found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_fhe import artifact
from onnx_fhe.ir.errors import UserError


@dataclass(frozen=True)
class Ours:
    """One of ``--ours``.

    Attributes:
        name: In the table.
        value: A preset, a pipeline, an artifact (``.fhe``), or a folder with an artifact for each model.
    """

    name: str
    value: str

    def setting(self, model: Path) -> dict[str, Any] | None:
        """Arguments of ``compile`` for a model; None where it is about another model.

        Raises:
            ArtifactError: The file is no artifact.
        """
        path = Path(self.value)
        if path.is_dir():
            path = path / f"{model.stem}.fhe"
            if not path.is_file():
                return None
        elif path.suffix != ".fhe":
            return {"pipeline": self.value}
        manifest, _ = artifact.read(path)
        if manifest.source.sha256 != hashlib.sha256(model.read_bytes()).hexdigest():
            return None
        return {"artifact": str(path.resolve())}


def parse(text: str) -> Ours:
    """Read ``NAME=VALUE``; a preset may stand alone.

    Raises:
        UserError: There is no name.
    """
    name, equals, value = text.partition("=")
    if not equals and name.isidentifier():
        return Ours(name, name)
    # The first "=" of a pipeline without a name stands inside of braces.
    if not name or not value or "{" in name:
        raise UserError(
            "a circuit to compare needs a name",
            found=text,
            allowed="NAME=PRESET, PIPELINE, FILE.fhe or FOLDER",
        )
    return Ours(name, value)


def check(circuits: list[Ours], models: list[Path]) -> None:
    """Each circuit is one of some model.

    Raises:
        UserError: One is of none of them.
    """
    for circuit in circuits:
        if all(circuit.setting(m) is None for m in models):
            raise UserError(
                "this circuit was compiled from none of the models",
                found=f"{circuit.name}={circuit.value}",
                allowed=", ".join(m.stem for m in models),
            )
