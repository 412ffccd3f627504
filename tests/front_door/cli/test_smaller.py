"""Smaller networks by the command line: per-layer values from a pipeline file, and smaller float files."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import onnx_fhe
from onnx_fhe.analysis.regions.linear import linear_of
from onnx_fhe.cli import main
from onnx_fhe.ir.ops import Encrypt, TableLookup

FILE = """
[[pass]]
name = "normalize"

[[pass]]
name = "remove-neurons"
layers = {"/0/Gemm" = 0.5, "/2/Gemm" = 0.25}

[[pass]]
name = "prune"
layers = {"/2/Gemm" = 0.75}

[[pass]]
name = "quantize"
weights = 4
[pass.layers."/0/Gemm"]
weights = 3
inputs = 2
[pass.layers."/2/Gemm"]
activations = 2

[[pass]]
name = "lower-to-integer"

[[pass]]
name = "fuse-tlu"

[[pass]]
name = "insert-rounding"
bits = 4
layers = {"/2/Gemm" = 3}
"""


@pytest.fixture
def optimize(digits_mlp, tmp_path):
    """`onnx-fhe opt` on the example network; returns the path that it wrote."""

    def run(pipeline):
        out = tmp_path / "out.onnx"
        line = ["opt", digits_mlp.model, "-p", pipeline, "--calibration", digits_mlp.calibration, "-o", out]
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in line])
        assert stopped.value.code == 0
        return out

    return run


def test_a_pipeline_file_gives_each_pass_values_for_single_layers(optimize, tmp_path):
    (tmp_path / "small.toml").write_text(FILE)
    model = onnx_fhe.load(optimize(f"@{tmp_path / 'small.toml'}"))
    layers = {str(n.name): x for n in model.graph if (x := linear_of(n)) is not None}
    first, second, last = (layers[f"/{i}/Gemm"].matrix() for i in (0, 2, 4))
    assert first.shape == (16, 64)
    assert second.shape == (24, 16)
    assert last.shape == (10, 24)
    assert np.mean(second == 0) > 0.7
    assert np.mean(last == 0) < 0.5
    tables = TableLookup.all_in(model)
    assert [t.table_bits for t in tables] == [4, 3]
    # Six bits where nothing else was said, two where it was.
    highest = [int(t.entries.max()) for t in tables]
    assert highest[0] > 3 >= highest[1]
    (encrypt,) = Encrypt.all_in(model)
    assert encrypt.high <= 3


def test_opt_writes_a_smaller_float_model_that_any_runtime_runs(optimize, digits_mlp):
    out = optimize("normalize,remove-neurons{ratio=0.5}")
    proto = onnx.load(out)
    onnx.checker.check_model(proto, full_check=True)
    assert {o.domain for o in proto.opset_import} <= {"", "ai.onnx"}
    assert not proto.functions
    given, found = (
        sum(v.const_value.size for v in m.graph.initializers.values() if v.const_value is not None)
        for m in (ir.load(digits_mlp.model), ir.from_proto(proto))
    )
    assert found < 0.6 * given
    before, after = (onnxruntime.InferenceSession(str(p)) for p in (digits_mlp.model, out))
    data = {"input": np.load(digits_mlp.test)["input"]}
    wanted, scores = before.run(None, data)[0], after.run(None, data)[0]
    assert [i.name for i in after.get_inputs()] == ["input"]
    assert scores.shape == wanted.shape
    assert np.mean(scores.argmax(axis=1) == wanted.argmax(axis=1)) > 0.95
