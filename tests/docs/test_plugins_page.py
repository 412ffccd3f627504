"""The plug-ins of docs/plugins.md work as they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_fhe
from onnx_fhe.backends import registry as backends
from onnx_fhe.cli.app import main
from onnx_fhe.ir.plugins import loading as plugins
from onnx_fhe.ir.plugins import tlu_operators
from onnx_fhe.ir.plugins.loading import load_plugin
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.framework import registry


@pytest.fixture
def page(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The page's plug-ins as files: a pass, an operator, a backend. None of them stays registered."""
    monkeypatch.setattr(plugins, "_plugins", {})
    monkeypatch.setattr(plugins, "_installed", True)
    for store in (registry.registered, tlu_operators.registered, backends.registered):
        monkeypatch.setattr(store, "entries", {})
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs" / "plugins.md").read_text(), re.DOTALL)
    files = []
    for name, block in zip(("my_pass", "my_operator", "my_backend"), blocks, strict=True):
        file = tmp_path / f"{name}.py"
        file.write_text(block)
        files.append(file)
    return files


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must succeed; returns its standard output."""

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as done:
            main([str(a) for a in arguments])
        output = capsys.readouterr()
        assert done.value.code == 0, output.err
        return output.out

    return call


def test_the_pass(page: list[Path], cli: Callable[..., str], digits_mlp, tmp_path: Path):
    out = tmp_path / "rounded.onnx"
    pipeline = "normalize,round-weights{decimals=1}"
    cli("opt", digits_mlp.model, "--plugin", page[0], "-p", pipeline, "-o", out)
    weights = [onnx.numpy_helper.to_array(i) for i in onnx.load(out).graph.initializer]
    assert all(np.array_equal(w, np.round(w, 1)) for w in weights if w.dtype == np.float32)
    assert "decimals" in cli("passes", "round-weights", "--plugin", page[0])


def test_the_operator(page: list[Path], tmp_path: Path):
    load_plugin(str(page[1]))
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "my.domain" : 1]> g (float[N, 3] x) => (float[N, 3] y)'
        "{ y = my.domain.Swishy<beta = 2.0>(x) }"
    )
    onnx.save(proto, tmp_path / "model.onnx")
    x = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)
    found = run(onnx_fhe.load(tmp_path / "model.onnx"), {"x": x})["y"]
    np.testing.assert_allclose(found, x / (1 + np.exp(-2 * x)), rtol=1e-5, atol=1e-6)


def test_the_backend(page: list[Path], cli: Callable[..., str], digits_mlp, tmp_path: Path):
    out = tmp_path / "narrow.fhe"
    pipeline = "quantize,lower-to-integer,fuse-tlu,insert-rounding{bits=4}"
    options = ["--plugin", page[2], "--backend", "narrow", "-p", pipeline, "-o", out, "--json"]
    told = cli("compile", digits_mlp.model, "--calibration", digits_mlp.calibration, *options)
    assert json.loads(told)["backend"] == "narrow"
    told = cli(
        "run",
        out,
        "--data",
        digits_mlp.test,
        "--mode",
        "encrypted",
        "--limit",
        3,
        "--plugin",
        page[2],
        "--json",
    )
    assert json.loads(told)["agreement"] == 1.0
