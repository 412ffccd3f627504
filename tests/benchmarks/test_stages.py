"""benchmarks/stages.py: all stages on a tiny circuit, with files between them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from small_circuits import small_circuit

pytestmark = pytest.mark.encrypted


@pytest.fixture
def stages(monkeypatch, root: Path) -> ModuleType:
    monkeypatch.syspath_prepend(root / "benchmarks")
    return importlib.import_module("stages")


def test_every_stage_leaves_a_file_for_the_next(stages, tmp_path, capsys):
    circuit = small_circuit(tmp_path)
    program, samples = circuit.program, circuit.some(40)
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
