"""What was found about each setting, in a file: a run that is broken off goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from onnx_fhe.ir.errors import DataError
from onnx_fhe.ir.paths import write_bytes

FORMAT = 1


class Cache:
    """Figures by model (its file and data, and the peer's packages) and setting.

    Args:
        path: The JSON file.

    Raises:
        DataError: The file is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._all: dict[str, Any] = {"format": FORMAT, "models": {}}
        if path.is_file():
            try:
                self._all = json.loads(path.read_text())
                written = self._all.get("format")
            except (ValueError, AttributeError) as error:
                raise DataError("this is no file of a sweep", file=str(path), found=str(error)) from error
            if written != FORMAT:
                raise DataError("this is no file of a sweep", file=str(path), allowed=f"format {FORMAT}")

    def model(self, key: str, about: dict[str, Any]) -> dict[str, Any]:
        """The entries of a model, by setting; ``about`` says in the file what they are of."""
        entry = self._all["models"].setdefault(key, {"about": about, "settings": {}})
        found: dict[str, Any] = entry["settings"]
        return found

    def write(self) -> None:
        """Write the file in one step."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self._path, (json.dumps(self._all, indent=1) + "\n").encode())


def key_of(files: list[Path], packages: dict[str, str]) -> str:
    """What the figures depend on, as a short name."""
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
