"""What commands say of a circuit and its network, before anything else."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.reference
import pytest

from onnx_fhe.cli.app import main

PIPELINE = "normalize,quantize{weights=6 activations=8},lower-to-integer,fuse-tlu"
FEW = "normalize,quantize{weights=1 activations=1 inputs=1},lower-to-integer,fuse-tlu"


def network(outputs: int, dead: int | None = None) -> onnx.ModelProto:
    """Two layers on four inputs; of ``dead`` only the bias is left."""
    random = np.random.default_rng(5)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[N,4] x) => (float[N,M] y) {'
        " h = Gemm<transB=1>(x, w1) r = Relu(h) y = Gemm<transB=1>(r, w2, b2) }"
    )
    last = random.standard_normal((outputs, 12)) / 3
    if dead is not None:
        last[dead] = 0
    for name, array in (("w1", random.standard_normal((12, 4))), ("w2", last), ("b2", np.ones(outputs))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = outputs
    return model


def samples(count: int = 150) -> np.ndarray:
    return np.random.default_rng(6).standard_normal((count, 4)).astype(np.float32)


def answers(model: onnx.ModelProto) -> np.ndarray:
    """What the network finds, by onnx's own evaluator."""
    return np.asarray(onnx.reference.ReferenceEvaluator(model).run(None, {"x": samples()})[0])


@pytest.fixture
def cli(capsys):
    """Runs the command line in this process: (status, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def files(tmp_path):
    """Makes a model file and its calibration data."""

    def make(outputs, labels=None, dead=None):
        model, data = tmp_path / "m.onnx", tmp_path / "c.npz"
        proto = network(outputs, dead)
        onnx.save(proto, model)
        known = {} if labels is None else {"labels": labels(answers(proto))}
        np.savez(data, x=samples(), **known)
        return model, data

    return make


def made(cli, model, data, out, *more, pipeline=PIPELINE):
    return cli(
        "compile", model, "--calibration", data, "-p", pipeline, "-o", out, "--backend", "reference", *more
    )


def test_a_classifier_is_described_first(cli, files, tmp_path):
    model, data = files(3, lambda y: y.argmax(axis=1))
    status, out, err = made(cli, model, data, tmp_path / "m.fhe")
    first, second = out.splitlines()[:2]
    assert status == 0, err
    assert first.startswith("On 150 calibration samples ")
    assert " of the predictions are the network's; accuracy " in first
    assert first.endswith("instead of 100 %.")
    assert second.startswith("Of its 3 outputs 'y'[")
    found = json.loads(made(cli, model, data, tmp_path / "m.fhe", "--json")[1])
    assert found["fidelity"]["headline"] in first.replace("On ", "on ", 1)
    assert (found["fidelity"]["verdict"], found["self_test"]) == ("good", None)


def test_a_regressor_is_described_by_how_much_it_follows(cli, files, tmp_path):
    model, data = files(1)
    status, out, _ = made(cli, model, data, tmp_path / "m.fhe")
    assert status == 0
    assert out.startswith("On 150 calibration samples output 'y' reproduces ")
    assert "the mean error is " in out.splitlines()[0]


def test_a_collapse_writes_nothing_unless_it_is_accepted(cli, files, tmp_path):
    model, data = files(3)
    out = tmp_path / "m.fhe"
    status, said, err = made(cli, model, data, out, pipeline=FEW)
    assert (status, said, out.exists()) == (1, "", False)
    assert "the circuit computes something else than the network" in err
    assert "do:      most is lost by writing weights, inputs and activations in few bits" in err
    status, said, err = made(cli, model, data, out, "--accept-loss", pipeline=FEW)
    assert (status, out.exists()) == (0, True)
    assert "warning: output 'y'[" in err
    status, said, _ = cli("report", out, "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "When it was compiled: on 150 calibration samples" in page
    assert "<strong>Warning:</strong> output " in page


def test_labels_from_one_are_said_and_give_no_accuracy(cli, files, tmp_path):
    model, data = files(3, lambda y: y.argmax(axis=1) + 1)
    status, out, err = made(cli, model, data, tmp_path / "m.fhe")
    assert status == 0
    assert "accuracy" not in out.splitlines()[0]
    assert "warning: " in err
    assert "subtract 1 from the labels" in err


def test_run_says_what_it_agrees_with(cli, files, tmp_path):
    model, data = files(3, lambda y: y.argmax(axis=1))
    out = tmp_path / "m.fhe"
    made(cli, model, data, out)
    _, alone, _ = cli("run", out, "--data", data, "--mode", "simulate")
    assert "equal those of the integer model" in alone
    assert "network " not in alone
    _, beside, _ = cli("run", out, "--data", data, "--mode", "simulate", "--model", model)
    assert "of the predictions are the network's; accuracy" in beside
    found = json.loads(cli("run", out, "--data", data, "--model", model, "--json")[1])
    assert found["agreement_with"] == "integer model"
    assert found["network"]["accuracy"] == 1.0
    assert found["network"]["agreement"] > 0.9


def test_run_of_a_regressor_has_no_accuracy(cli, files, tmp_path):
    model, data = files(1, lambda y: y[:, 0] + 0.001)
    out = tmp_path / "m.fhe"
    made(cli, model, data, out)
    found = json.loads(cli("run", out, "--data", data, "--model", model, "--json")[1])
    assert found["accuracy"] is None
    assert found["values"]["r2"] > 0.9
    assert found["network"]["values"]["mean_error"] == pytest.approx(0.001, rel=0.01)
    assert "R^2 " in cli("run", out, "--data", data)[1]


def test_run_refuses_another_network(cli, files, tmp_path):
    model, data = files(3)
    out = tmp_path / "m.fhe"
    made(cli, model, data, out)
    onnx.save(network(3, dead=1), model)
    status, _, err = cli("run", out, "--data", data, "--model", model)
    assert status == 1
    assert "not the network that was compiled" in err


def test_opt_compares_what_it_made_once_it_is_quantized(cli, files, tmp_path):
    model, data = files(3)
    out = tmp_path / "q.onnx"
    opt = ("opt", model, "--calibration", data, "-o", out, "--check")
    status, said, _ = cli(*opt, "-p", "normalize,quantize{weights=6 activations=8}")
    assert (status, out.exists()) == (0, True)
    assert said.startswith("On 150 calibration samples ")
    out.unlink()
    status, _, err = cli(*opt, "-p", "normalize,quantize{weights=1 activations=1 inputs=1}")
    assert (status, out.exists()) == (1, False)
    assert "computes something else" in err
    assert cli(*opt, "--accept-loss", "-p", "normalize,quantize{weights=1 activations=1 inputs=1}")[0] == 0
    status, said, _ = cli(*opt, "-p", "normalize")
    assert (status, "calibration samples" in said) == (0, False)
