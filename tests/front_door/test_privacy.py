"""What the tool itself tells others, and what it leaves behind: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import {first}
import onnx_ir as ir
from onnx_fhe.ir.runtime import run
import numpy as np
model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["" : 21]>
graph (float[N, 2] x) => (float[N, 2] y) {{ y = Relu(x) }}''')
assert run(model, {{"x": np.ones((1, 2), np.float32)}})["y"].shape == (1, 2)
"""


def started(home: Path, code: str, **environment: str) -> list[str]:
    """Run Python with ``home`` as everything that belongs to a user; the files that it leaves there."""
    # onnxruntime sends nothing by itself where it takes itself to be tested.
    kept = {k: v for k, v in os.environ.items() if k not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    places = {k: str(home / k) for k in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    for place in places.values():
        Path(place).mkdir()
    subprocess.run([sys.executable, "-c", code], env=kept | places | environment, check=True, timeout=120)
    return sorted(str(f.relative_to(home)) for f in home.rglob("*") if f.is_file())


@pytest.mark.parametrize("wish", [{}, {"ORT_DISABLE_TELEMETRY": "0"}], ids=["unset", "on"])
@pytest.mark.parametrize("first", ["onnx_fhe", "onnx_fhe.ir.opsets", "onnx_fhe.cli"])
def test_onnxruntime_tells_nobody(first: str, wish: dict[str, str], tmp_path: Path) -> None:
    assert started(tmp_path, RUN.format(first=first), **wish) == []
