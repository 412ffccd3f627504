"""benchmarks/bench.py and levers.py: one small run each, and what is refused."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def bench(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "benchmarks" / "bench.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(digits_mlp, tmp_path: Path) -> Path:
    """A model with a few samples; the calibration data's labels are not even numbers."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(digits_mlp.model, folder / "mlp.onnx")
    given = digits_mlp.calibration_data["input"]
    np.savez(folder / "mlp.calibration.npz", input=given, labels=np.full(len(given), 10**6))
    images, labels = digits_mlp.test_data["input"], digits_mlp.labels
    np.savez(folder / "mlp.validation.npz", input=images[:20], labels=labels[:20])
    # The last sample is one of calibration, as it should not be.
    last = np.concatenate([images[20:39], given[:1]])
    np.savez(folder / "mlp.test.npz", input=last, labels=labels[20:40])
    return folder


def test_a_run(root: Path, folder: Path, tmp_path: Path):
    out = tmp_path / "figures.json"
    pipeline = "quantize,lower-to-integer,fuse-tlu,insert-rounding{bits=4}"
    done = bench(root, folder, "-p", pipeline, "--modes", "observed", "--json", out)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert {"date", "processor", "cores", "packages", "command", "settings"} <= set(report)
    (model,) = report["models"]
    assert model["samples"] == {"calibration": 500, "validation": 20, "test": 20}
    assert model["scored_samples"] == 40
    assert model["scored_samples_in_calibration"] == 1
    assert model["float_accuracy"] > 0.8
    assert model["quantized"]["values"] == 40 * 64
    assert model["quantized"]["differ_by_more_than_a_step"] == 0
    found = model["modes"]["observed"]
    assert found["simulated_accuracy"] > 0.8
    assert found["programmable_bootstraps"] == 64
    assert found["complexity"] > 1e9
    assert found["encrypted"] is None
    assert "| mlp | observed |" in done.stdout


def test_a_model_that_fails_does_not_end_the_others(root: Path, folder: Path):
    (folder / "bad.onnx").write_bytes(b"no model")
    for part in ("calibration", "test"):
        shutil.copy(folder / f"mlp.{part}.npz", folder / f"bad.{part}.npz")
    done = bench(root, folder, "--models", "bad")
    assert done.returncode == 1
    assert "bad failed" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_folder_without_models_is_refused(root: Path, folder: Path, tmp_path: Path):
    done = bench(root, tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "NAME.calibration.npz" in done.stderr
    done = bench(root, folder, "--models", "cnn")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cnn" in done.stderr
    assert "mlp" in done.stderr


def test_the_table_of_levers(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    levers = importlib.import_module("levers")
    chosen = ["3 bits, min-max, nearest", "3 bits, `refine-tables`"]
    monkeypatch.setattr(levers, "PIPELINES", {n: levers.PIPELINES[n] for n in chosen})
    assert levers.main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| | mlp: accuracy | bootstraps | complexity |")
    assert [line.split("|")[1].strip() for line in lines[2:]] == chosen
    assert all("| 64 |" in line for line in lines[2:])
