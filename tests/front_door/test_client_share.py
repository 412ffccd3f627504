"""What the client computes is a choice, and is told."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import onnx_fhe
from onnx_fhe.cli import main
from onnx_fhe.client_share import SENTENCES, ClientShare
from onnx_fhe.ir.errors import PipelineError, UserError
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.framework.pipeline import pass_name
from onnx_fhe.sides.split import split
from onnx_fhe.testing import zoo
from onnx_fhe.testing.pipelines import dense, imported

REST = "quantize{weights=6 activations=8},lower-to-integer,fuse-tlu"


def compiled(pipeline: str = REST, **options):
    given = {"check_samples": 0, "accept_loss": True, "backend": "reference"} | options
    proto = zoo.mlp()
    return onnx_fhe.compile(imported(proto), zoo.samples(proto, 80), pipeline, **given)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, ["inputs"]),
        ({"client_until": "/Gemm_2"}, ["until"]),
        ({"client_until": ["/Gemm_2"], "client_from": ["Gemm"]}, ["until", "from"]),
    ],
)
def test_the_manifest_says_what_is_revealed(tmp_path, options, kinds):
    program = compiled(**options)
    assert program.manifest.client == "; ".join(SENTENCES[k] for k in kinds)
    program.save(tmp_path / "m.fhe")
    assert onnx_fhe.Program.load(tmp_path / "m.fhe").manifest.client == program.manifest.client


def test_passes_of_a_pipeline_count_as_the_options_do():
    program = compiled(f"normalize,lift-features{{features=16}},{REST}")
    assert program.manifest.client == SENTENCES["features"]
    assert program.manifest.statistics.programmable_bootstraps == 0


def test_a_student_stands_in_front_of_the_pipeline():
    share = ClientShare.chosen("inputs", (), (), imitate=True)
    passes = share.applied(PassManager.parse("normalize,quantize")).passes
    assert [pass_name(p) for p in passes] == ["imitate", "normalize", "quantize"]
    assert share.applied(PassManager(passes)).passes == passes


def test_what_makes_no_sense_is_refused():
    with pytest.raises(UserError, match="features stand for the whole network"):
        compiled(client="features", client_until="/Gemm_2")
    with pytest.raises(UserError, match="no such share"):
        compiled(client="weights")
    with pytest.raises(PipelineError, match="does not have"):
        compiled(client_until="fc1")


def test_the_command_line_takes_the_same(tmp_path, capsys):
    path, data = tmp_path / "m.onnx", tmp_path / "c.npz"
    onnx.save(zoo.mlp(), path)
    np.savez(data, **zoo.samples(zoo.mlp(), 80))
    out = tmp_path / "m.fhe"
    arguments = ["compile", path, "--calibration", data, "-o", out, "--backend", "reference", "--json"]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "-p", REST, "--client-until", "/Gemm_2", "--accept-loss"])
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["client"] == SENTENCES["until"]
    assert "place{client-until=" in found["pipeline"]


def test_client_halves_of_two_networks_differ_in_the_scale_of_outputs_alone():
    halves = []
    for seed in (1, 2):
        proto = dense(6, 8, 3, seed=seed)
        program = onnx_fhe.compile(
            imported(proto),
            zoo.samples(proto, 80),
            f"normalize,lift-features{{family=cosines features=16}},{REST}",
            check_samples=0,
            accept_loss=True,
        )
        halves.append(split(program)[0])
    first, second = (dict(h.parts) for h in halves)
    differing = {name for name in first if first[name] != second.get(name)}
    assert "prologue.onnx" not in differing
    assert "ranges.json" not in differing
    assert differing <= {"epilogue.onnx", "circuits/1/client/specs.json", "circuits/1/client/ports.json"}
