"""benchmarks/stages.py: all stages on a tiny circuit, with files between them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

import onnx_fhe
from onnx_fhe.testing.builder import Builder

pytestmark = pytest.mark.encrypted
PIPELINE = "quantize{weights=2 activations=2 inputs=3},lower-to-integer,fuse-tlu"


@pytest.fixture
def stages(monkeypatch, root: Path) -> ModuleType:
    monkeypatch.syspath_prepend(root / "benchmarks")
    return importlib.import_module("stages")


def test_every_stage_leaves_a_file_for_the_next(stages, zoo, tmp_path, capsys):
    b = Builder(17, seed=3)
    model = b.model(b.dense(b.node("Relu", b.dense("input", 6, 4)), 4, 3), [6], [3])
    onnx.save(model, tmp_path / "m.onnx")
    samples = zoo.samples(model, 40)
    program = onnx_fhe.compile(
        tmp_path / "m.onnx", samples, PIPELINE, p_error=1e-6, check_samples=0, accept_loss=True
    )
    program.save(tmp_path / "m.fhe")
    labels = next(iter(program.run(samples).outputs.values())).argmax(axis=1)
    np.savez(tmp_path / "x.npz", labels=labels, **samples)
    stages.main(
        [
            *(str(tmp_path / "m.fhe"), "--data", str(tmp_path / "x.npz"), "--samples", "2"),
            *("--folder", str(tmp_path / "between"), "--json", str(tmp_path / "found.json")),
        ]
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["stages"]) == list(stages.STAGES)
    assert all(s["seconds"] > 0 and s["bytes"] > 0 for s in found["stages"].values())
    assert found["right"] == 2, "the labels are what the integer model says"
    printed = capsys.readouterr().out
    assert "| evaluation keys, bytes |" in printed
    assert "2 of 2 encrypted samples are classified right" in printed
