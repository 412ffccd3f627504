"""A short fuzz run with fixed seeds: nothing but a ``UserError`` may come of any file or pipeline text."""

# ruff: noqa: PT017 - most inputs raise nothing
from __future__ import annotations

import importlib.util
import io
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.errors import UserError
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.framework.text import parse
from onnx_fhe.program import Program

HOSTILE = Path(__file__).parent
MODELS, TEXTS = 150, 3000

WORDS = [*'{}[]=, "\\@', "quantize", "weights", "=3", "layers", "normalize", "balanced", "1e999", "-", "none"]
WORDS += [
    "true",
    "9" * 5000,
    "{" * 40,
    "[" * 2000,
    "\x00",
    "\x1b[2J",
    "\u202e",
    "\ud7ff",
    "nan",
    "fuse-tlu",
    "{bits=auto}",
]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hostile_{name}", HOSTILE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_mutated_models(tmp_path):
    done = subprocess.run(
        [sys.executable, HOSTILE / "mutants.py", str(MODELS), tmp_path],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-20:] + done.stderr[-4000:]
    assert done.stdout.count("seed") == MODELS


def test_random_pipelines():
    for seed in range(TEXTS):
        source = random.Random(seed)
        text = "".join(source.choice(WORDS) for _ in range(source.randint(1, 12)))
        try:
            if any(p.is_file for p in parse(text)):
                continue
            printed = PassManager.parse(text).to_text()
        except UserError as error:
            assert "\x1b" not in str(error)
            continue
        assert PassManager.parse(printed).to_text() == printed


@pytest.mark.parametrize("depth", [10, 100_000])
def test_deep_toml(depth, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text(f'[[pass]]\nname = "quantize"\nweights = {"[" * depth}{"]" * depth}\n')
    with pytest.raises(UserError):
        PassManager.parse(f"@{path}")


def test_toml_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "p.toml")
    with pytest.raises(UserError):
        PassManager.parse(f"@{tmp_path / 'p.toml'}")


def test_mutated_data_and_artifacts(tmp_path):
    mutate = _load("mutate")
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((3, 4), np.float32), labels=np.arange(3))
    content = path.read_bytes()
    for seed in range(300):
        source = random.Random(seed)
        mutated = content
        for _ in range(source.randint(1, 4)):
            mutated = mutate._bytes(mutated, source)
        path.write_bytes(mutated)
        for read in (read_npz, Program.load):
            try:
                read(path)
            except UserError as error:
                assert str(path) in str(error)


def test_data_that_declares_more_than_it_holds(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((3, 4), np.float32))
    content = path.read_bytes()
    member = zipfile.ZipFile(io.BytesIO(content)).read("x.npy").replace(b"(3, 4), }    ", b"(3, 40000000)}")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(UserError, match="not what it holds"):
        read_npz(path)


def test_a_bomb_of_data(tmp_path, monkeypatch):
    monkeypatch.setattr("onnx_fhe.ir.array_archive.MAX_DATA_BYTES", 1000)
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.zeros((100_000, 4), np.float32))
    with pytest.raises(UserError, match="unpacks to more"):
        read_npz(path)
