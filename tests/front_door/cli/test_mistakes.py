"""Wrong uses: one clear message on standard error, the right exit status, nothing on standard output."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_fhe.cli import main

PIPELINE = "quantize,lower-to-integer,fuse-tlu"


@pytest.fixture
def refuse(capsys):
    """Runs the command line, expects a status, and returns the message."""

    def run(status, *arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert stopped.value.code == status, err
        assert out == ""
        assert "Traceback" not in err
        if status == 1:
            assert err.startswith("error: ")
        return err

    return run


@pytest.fixture
def compile_(refuse, digits_mlp, tmp_path):
    """Expects `compile` of digits_mlp to be refused; keywords replace what is right."""

    def run(
        *more,
        status=1,
        model=digits_mlp.model,
        calibration=digits_mlp.calibration,
        out=None,
        pipeline=PIPELINE,
    ):
        target = out or tmp_path / "out.fhe"
        text = ["-p", pipeline] if pipeline else []
        message = refuse(
            status, "compile", model, "--calibration", calibration, "-o", target, "--backend", "reference",
            "--json", *text, *more,
        )  # fmt: skip
        assert not (tmp_path / "out.fhe").exists()
        assert not [f for f in tmp_path.iterdir() if f.suffix == ".part"]
        return message

    return run


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("name", ["inspect", "opt", "compile"])
def test_a_file_that_is_no_onnx(refuse, digits_mlp, tmp_path, name):
    path = tmp_path / "text.onnx"
    path.write_text("hello, this is no model\n" * 9)
    more = {
        "inspect": [],
        "opt": ["-p", "normalize", "-o", tmp_path / "o.onnx"],
        "compile": ["--calibration", digits_mlp.calibration, "-o", tmp_path / "o.fhe", "-p", PIPELINE],
    }
    message = refuse(1, name, path, *more[name])
    assert str(path) in message
    assert "ONNX" in message


def test_a_model_that_is_not_there(refuse, tmp_path):
    assert "no such model file" in refuse(1, "inspect", tmp_path / "none.onnx")
    assert "no such artifact" in refuse(1, "inspect", tmp_path / "none.fhe")


def test_an_operator_that_cannot_be_lowered(compile_, tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}, int64[1] k = {2}>
    { [one] a = Gemm (x, w) [most] b, i = TopK (a, k) [two] y = Gemm (b, w) }
    """
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    message = compile_(model=path, calibration=npz(tmp_path / "c.npz", x=np.zeros((9, 2), np.float32)))
    assert "'most' (TopK)" in message
    assert "comparison of every pair" in message
    assert "do:" in message


@pytest.mark.parametrize("axes", [(5,), (5, 63), (5, 8, 8), (64,)])
def test_calibration_of_the_wrong_shape(compile_, tmp_path, axes):
    path = npz(tmp_path / "c.npz", input=np.zeros(axes, np.float32))
    message = compile_(calibration=path)
    assert str(path) in message
    assert "(samples, 64)" in message


def test_calibration_of_the_wrong_name(compile_, tmp_path):
    message = compile_(calibration=npz(tmp_path / "c.npz", image=np.zeros((5, 64)), other=np.zeros((5, 64))))
    assert "'input'" in message
    assert "'image'" in message


def test_calibration_that_is_no_data(compile_, tmp_path):
    path = tmp_path / "c.npz"
    path.write_text("no data")
    assert "not an .npz" in compile_(calibration=path)
    assert "no such data file" in compile_(calibration=tmp_path / "none.npz")


def test_nan_in_the_weights(compile_, digits_mlp, tmp_path):
    proto = onnx.load(digits_mlp.model)
    weight = proto.graph.initializer[0]
    array = numpy_helper.to_array(weight).copy()
    array.flat[3] = np.nan
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    path = tmp_path / "nan.onnx"
    onnx.save(proto, path)
    message = compile_(model=path)
    assert "1 NaN" in message
    assert weight.name in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_the_data(compile_, digits_mlp, tmp_path, value):
    array = digits_mlp.calibration_data["input"].copy()
    array[7, 2] = value
    message = compile_(calibration=npz(tmp_path / "c.npz", input=array))
    assert "sample 7" in message


def test_a_misspelt_option_is_pointed_at(compile_):
    message = compile_(pipeline="quantize{wieghts=3},lower-to-integer")
    shown, caret = message.splitlines()[1:3]
    assert caret.index("^") == shown.index("wieghts")
    assert "did you mean weights?" in message


def test_a_misspelt_pass_and_a_misspelt_preset(compile_):
    assert "did you mean quantize?" in compile_(pipeline="quantise")
    assert "did you mean balanced?" in compile_("--preset", "balance", pipeline=None)


def test_an_output_that_cannot_be_written(compile_, refuse, digits_mlp, tmp_path):
    assert "cannot write" in compile_(out=tmp_path / "missing" / "o.fhe")
    assert "cannot write" in compile_(out=tmp_path)
    message = refuse(1, "opt", digits_mlp.model, "-p", "normalize", "-o", tmp_path / "missing" / "o.onnx")
    assert "cannot write" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(compile_, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "cannot write" in compile_(out=locked / "o.fhe")


@pytest.mark.parametrize(
    "more",
    [
        ["--p-error", "2"],
        ["--p-error", "0"],
        ["--global-p-error", "-0.1"],
        ["--range-margin", "-1"],
        ["--range-margin", "nan"],
        ["--seed", "-1"],
        ["--backend", "none"],
        ["--plugin", "no_such_module_here"],
        ["--plugin", "./none.py"],
    ],
    ids=" ".join,
)
def test_values_that_make_no_sense(compile_, more):
    compile_(*more)


def test_a_pipeline_that_ends_too_early(compile_):
    assert "does not reach the integer level" in compile_(pipeline="quantize")
    assert "add fuse-tlu" in compile_(pipeline="quantize,lower-to-integer")


def test_a_pass_that_needs_calibration_says_so(refuse, digits_mlp, tmp_path):
    message = refuse(1, "opt", digits_mlp.model, "-p", "normalize,quantize", "-o", tmp_path / "o.onnx")
    assert "--calibration" in message


def test_passes_of_an_unknown_name(refuse):
    assert "no pass 'quantise'" in refuse(1, "passes", "quantise")


def test_run_of_what_is_no_artifact(refuse, digits_mlp, tmp_path):
    message = refuse(1, "run", digits_mlp.model, "--data", digits_mlp.test)
    assert "no artifact" in message
    assert "compile the model first" in message
    refuse(1, "run", tmp_path / "none.fhe", "--data", digits_mlp.test)


@pytest.fixture(scope="module")
def artifact(digits_mlp, tmp_path_factory):
    out = tmp_path_factory.mktemp("artifact") / "digits.fhe"
    arguments = ["compile", digits_mlp.model, "--calibration", digits_mlp.calibration, "-o", out]
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in [*arguments, "-p", PIPELINE, "--backend", "reference"]])
    assert stopped.value.code == 0
    return out


def test_run_on_data_that_does_not_fit(refuse, artifact, digits_mlp, tmp_path):
    wrong = npz(tmp_path / "shape.npz", input=np.zeros((5, 3), np.float32))
    assert "wrong shape" in refuse(1, "run", artifact, "--data", wrong)
    wrong = npz(tmp_path / "nan.npz", input=np.full((5, 64), np.nan, np.float32))
    assert "NaN" in refuse(1, "run", artifact, "--data", wrong)
    wrong = npz(tmp_path / "labels.npz", input=np.zeros((5, 64), np.float32), labels=np.zeros(4, int))
    assert "differ in number" in refuse(1, "run", artifact, "--data", wrong)
    assert "no such data file" in refuse(1, "run", artifact, "--data", tmp_path / "none.npz")
    message = refuse(1, "run", artifact, "--data", digits_mlp.test, "-o", tmp_path / "missing" / "o.npz")
    assert "cannot write" in message


def test_usage_is_two(refuse, artifact, digits_mlp, tmp_path):
    out = tmp_path / "o.fhe"
    common = ["compile", digits_mlp.model, "--calibration", digits_mlp.calibration, "-o", out]
    refuse(2, "compile", digits_mlp.model)
    refuse(2, *common, "--nonsense")
    refuse(2, *common, "-p", PIPELINE, "--preset", "balanced")
    refuse(2, *common, "--range-mode", "wide")
    refuse(2, *common, "--p-error", "little")
    refuse(2, "nonsense")
    refuse(2, "run", artifact, "--data", digits_mlp.test, "--mode", "fast")
    refuse(2, "run", artifact, "--data", digits_mlp.test, "--limit", "0")
