"""Inspect so many mutated models (``python mutants.py COUNT FOLDER``); the last line printed names the seed.

In a process of its own: what native code does to a file like these may end the process.
"""

# ruff: noqa: PT017 - most inputs raise nothing
from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

from onnx_fhe.inspection import inspect_model
from onnx_fhe.ir.errors import UserError
from onnx_fhe.ir.guard import FileLimits
from onnx_fhe.testing import zoo

HERE = Path(__file__).parent
LIMITS = FileLimits(bytes=2**20, nodes=500, elements=2**20, operations=2**24)
MADE = ("dialect-with-odd-tables", "claims-to-be-integer", "expand-bomb", "deep-ifs", "doubling-loop")


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main(count: int, folder: Path) -> None:
    """Make, mutate and inspect; what goes wrong is raised."""
    corpus, mutate = _load(HERE / "corpus.py"), _load(HERE / "mutate.py")
    seeds = [make().SerializeToString() for make in zoo.NETWORKS.values()]
    seeds += [corpus.dense().SerializeToString(), corpus.conv().SerializeToString()]
    seeds += [corpus.MADE[name].make(folder).SerializeToString() for name in MADE]
    path = folder / "model.onnx"
    for seed in range(count):
        source = random.Random(seed)
        path.write_bytes(mutate.mutate(source.choice(seeds), source))
        print(f"seed {seed}", flush=True)
        try:
            inspect_model(path, LIMITS)
        except UserError as error:
            assert str(path) in str(error)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
