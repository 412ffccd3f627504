"""benchmarks/checkerboard.py: its data is what it says, and one small run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def networks(root):
    path = root / "benchmarks" / "checker_networks.py"
    spec = importlib.util.spec_from_file_location("checker_networks", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_board(networks):
    train, test = networks.board(0)
    assert train.inputs.shape == (9500, 2)
    assert test.inputs.shape == (500, 2)
    points = np.concatenate([train.inputs, test.inputs])
    labels = np.concatenate([train.labels, test.labels])
    assert 0.49 < labels.mean() < 0.51
    assert -0.06 < points.min() < 0 < 1 < points.max() < 1.06
    # Away from the edges at 1/6, 1/2 and 5/6 the colour is certain; on them points were moved across.
    right = np.rint(points * 3).sum(axis=1) % 2 == labels
    far = (np.abs((points * 3) % 1 - 0.5) > 0.15).all(axis=1)
    assert right[far].all()
    assert 0.94 < right.mean() < 0.97
    other = networks.board(1)[0]
    assert not np.array_equal(other.inputs, train.inputs)


def test_a_mask_stands_through_training(networks):
    network = networks.train(networks.board(0)[0], 12, 5, 0, 1)
    first, second, third = (layer.weight.detach().numpy() for layer in network if hasattr(layer, "weight"))
    assert np.count_nonzero(first) == first.size
    assert (np.count_nonzero(second, axis=1) == 5).all()
    assert (np.count_nonzero(third, axis=1) == 5).all()


@pytest.fixture
def run(root, tmp_path, monkeypatch, capsys):
    """Runs the benchmark in this process: what it prints, and its report."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    main = importlib.import_module("checkerboard").main

    def call(*options):
        files = ["--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]
        assert main([*options, *files]) == 0
        return capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())

    return call


def test_a_run(run, tmp_path):
    options = [
        "--seeds",
        "1",
        "--epochs",
        "4",
        "--neurons",
        "16",
        "--pruned",
        "6",
        "--pruned-neurons",
        "12",
        "--backend",
        "reference",
    ]
    printed, report = run(*options)
    assert "| | 16 neurons | 12 neurons, 6 non-zero |" in printed
    for row in report["rows"]:
        assert 0.4 < row["float_accuracy"] < 1
        for name, found in row["pipelines"].items():
            assert 0.4 < found["accuracy"] < 1
            if "8-bit" in name:
                assert found["bits"] <= 8
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_trained_run(run, tmp_path):
    options = ["--trained", "--seeds", "1", "--epochs", "2", "--steps", "60", "--pruned", "4"]
    options += ["--pruned-neurons", "10", "--backend", "reference"]
    _, report = run(*options)
    (row,) = report["rows"]
    ((name, found),) = row["pipelines"].items()
    assert (row["neurons"], row["non_zero"]) == (10, 4)
    assert "nonzeros=4" in report["pipelines"][name]
    assert found["bits"] <= 8
    assert row["seeds"][0]["pipelines"][name]["overflows"] == 0
    assert 0.4 < found["accuracy"] < 1
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
