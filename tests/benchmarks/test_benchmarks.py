"""benchmarks/bench.py, levers.py and compile_time.py: one small run each, and what is refused."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture
def bench_here(root: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """``bench`` in this process."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    main = importlib.import_module("bench").main

    def run(*arguments: object) -> SimpleNamespace:
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=out, stderr=err)

    return run


def test_a_model_that_fails_does_not_end_the_others(bench_here, folder: Path):
    (folder / "bad.onnx").write_bytes(b"no model")
    for part in ("calibration", "test"):
        shutil.copy(folder / f"mlp.{part}.npz", folder / f"bad.{part}.npz")
    done = bench_here(folder, "--models", "bad")
    assert done.returncode == 1
    assert "bad failed" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_folder_without_models_is_refused(bench_here, folder: Path, tmp_path: Path):
    done = bench_here(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "NAME.calibration.npz" in done.stderr
    done = bench_here(folder, "--models", "cnn")
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


def test_compile_time_beside_another_checkout(
    root: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    compile_time = importlib.import_module("compile_time")
    out, text = tmp_path / "out.json", tmp_path / "out.md"
    pipeline = "quantize{weights=3 activations=3 inputs=3},lower-to-integer,fuse-tlu,insert-rounding{bits=3}"
    options = ["--no-regressors", "--backend", "reference", "--repeats", "1", "--against", str(root)]
    none = ["--widths", "", "--depths", "", "--samples", ""]
    files = ["--json", str(out), "--markdown", str(text)]
    assert compile_time.main([str(folder), "-p", pipeline, *options, *none, *files]) == 0
    printed, error = capsys.readouterr()
    assert error == "", "progress is for terminals"
    assert text.read_text() == printed
    assert "| mlp | quantize{weights=3" in printed
    report = json.loads(out.read_text())
    assert {"date", "processor", "cores", "packages", "command", "settings"} <= set(report)
    assert set(report["sides"]) == {"here", "there"}
    (row,) = report["rows"]
    here, there = row["sides"]["here"], row["sides"]["there"]
    assert here["bootstraps"] == there["bootstraps"] > 0
    assert here["complexity"] == there["complexity"] > 0
    assert here["processor_seconds"] >= sum(here["passes"].values()) > 0
    assert here["processor_seconds"] >= sum(here["stages"].values()) > here["stages"]["passes"] > 0
    assert {"normalize", "quantize", "insert-rounding"} <= set(here["passes"])
    assert 0.8 < here["agreement"] <= 1


def test_curves_of_compile_time(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    compile_time, report = (importlib.import_module(f"compile_{name}") for name in ("time", "report"))
    given = compile_time._parser().parse_args(["--widths", "4,8", "--depths", "2", "--samples", "20"])
    cases = list(compile_time.curves(given, tmp_path))
    assert [(c.curve, c.size, c.network.name) for c in cases] == [
        ("width", 4, "dense_4x3_250"),
        ("width", 8, "dense_8x3_250"),
        ("depth", 2, "dense_32x2_250"),
        ("samples", 20, "dense_32x3_20"),
    ]
    assert len(np.load(cases[3].network.calibration)["x"]) == 20

    def found(seconds: float) -> dict[str, object]:
        passes = {"quantize": seconds / 2, "normalize": 0.5}
        times = {"seconds": seconds, "processor_seconds": seconds}
        return {**times, "passes": passes, "stages": {"passes": seconds}, "bootstraps": 12}

    rows = [
        {"name": "", "pipeline": "", "curve": "width", "size": size, "sides": {"here": found(size**2)}}
        for size in (4, 8)
    ]
    about = {
        "command": "",
        "date": "2026-11-30",
        "cores": 2,
        "processor": "",
        "load": 0,
        "sides": {"here": ""},
    }
    lines = report.to_markdown(
        {**about, "settings": {"backend": "", "repeats": 1}, "rows": rows}
    ).splitlines()
    assert "| width | 4 | 8 | exponent | of the last two |" in lines
    assert "| seconds | 16.0 | 64.0 |  |  |" in lines
    assert "| processor, s | 16.0 | 64.0 | 2.00 | 2.00 |" in lines
    assert (
        "Faster than linear in width: the exponent of the last two sizes is 2.00, 1.15 is allowed." in lines
    )
    assert "quantize 2.00 (32.0 s)" in lines[-1]
    assert "normalize" not in lines[-1]


def test_compile_time_goes_on_after_a_failure(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    compile_time = importlib.import_module("compile_time")
    options = ["--no-regressors", "--backend", "reference", "--repeats", "2"]
    none = ["--widths", "", "--depths", "", "--samples", ""]
    assert compile_time.main([str(folder), "-p", "quantize", *options, *none]) == 1
    assert "mlp, quantize, here: the pipeline does not reach the integer level" in capsys.readouterr().out
    assert compile_time.main([str(folder), "-p", "quantize", "--patience", "0.01", *options, *none]) == 1
    assert "more than 0 s" in capsys.readouterr().out
    assert compile_time.main([str(folder), "--models", "cnn", *options, *none]) == 1
    assert "no such model with data" in capsys.readouterr().err
    assert compile_time.main([str(folder), "--against", str(folder), *options, *none]) == 1
    assert "no checkout" in capsys.readouterr().err


def test_exponents_and_medians_of_compile_time(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    report, sides = (importlib.import_module(f"compile_{name}") for name in ("report", "sides"))
    assert report.exponent([16, 32, 64], [3, 12, 48]) == pytest.approx(2)
    assert report.exponent([16], [3]) is None
    runs = [
        {"seconds": s, "processor_seconds": s, "peak_memory_mb": s, "stages": {}, "passes": {"quantize": s}}
        for s in (5, 1, 3)
    ]
    found = sides.medians(runs)
    assert (found["seconds"], found["passes"], found["peak_memory_mb"]) == (3, {"quantize": 3}, 5)
    assert found["all_seconds"] == [5, 1, 3]


def test_the_regressors_of_compile_time_are_made_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    networks = importlib.import_module("compile_networks")
    for name in networks.REGRESSORS:
        made = networks.regressor(name, tmp_path, steps=2)
        before = made.model.read_bytes()
        assert networks.regressor(name, tmp_path, steps=3) == made
        assert made.model.read_bytes() == before
        shape = np.load(made.calibration)["x"].shape
        assert shape == (500, networks.REGRESSORS[name].sizes[0])
