"""The commands of the two sides, one after the other, each with files only."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from small_circuits import PIPELINE, small_network

from onnx_fhe.cli.app import main

pytestmark = pytest.mark.encrypted


@pytest.fixture
def command(capsys):
    """Runs a command; returns its exit status, and what it printed on both streams."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def test_from_a_model_to_outputs_in_six_commands(zoo, tmp_path, command):
    model = small_network()
    onnx.save(model, tmp_path / "m.onnx")
    samples = zoo.samples(model, 40)
    np.savez(tmp_path / "c.npz", **samples)
    np.savez(tmp_path / "x.npz", **{k: v[:2] for k, v in samples.items()}, labels=np.array([0, 1]))
    f = {n: tmp_path / n for n in ("m.fhe", "m.client", "m.server", "keys", "e.keys", "in", "out", "y.npz")}

    status, told, wrong = command(
        *("compile", tmp_path / "m.onnx", "--calibration", tmp_path / "c.npz", "-p", PIPELINE),
        *("-o", f["m.fhe"], "--halves", "--accept-loss", "--self-test", 0, "--p-error", 1e-6),
    )
    assert (status, f["m.client"].is_file(), f["m.server"].is_file()) == (0, True, True), wrong
    assert str(f["m.server"]) in told

    assert command("keygen", f["m.client"], "--keys", f["keys"], "-o", f["e.keys"])[0] == 0
    status, _, wrong = command("keygen", f["m.client"], "--keys", f["keys"], "-o", f["e.keys"])
    assert status == 1
    assert "--force" in wrong

    secret = next(f["keys"].iterdir())
    given = ("--keys", f["keys"])
    assert command("encrypt", f["m.client"], *given, "--data", tmp_path / "x.npz", "-o", f["in"])[0] == 0
    asked = ("evaluate", f["m.server"], f["in"], "-o", f["out"])
    status, _, wrong = command(*asked, "--evaluation-keys", secret)
    assert status == 1
    assert "secret keys" in wrong
    assert str(secret) in wrong
    assert not f["out"].exists()
    status, _, wrong = command("evaluate", f["m.fhe"], *asked[2:], "--evaluation-keys", f["e.keys"])
    assert status == 1
    assert "this is no server half" in wrong
    assert "`onnx-fhe split OUT.fhe` writes it" in wrong
    assert command(*asked, "--evaluation-keys", f["e.keys"])[0] == 0

    status, told, wrong = command(
        *("decrypt", f["m.client"], f["out"], *given, "-o", f["y.npz"], "--inputs", f["in"]),
        *("--data", tmp_path / "x.npz", "--json"),
    )
    assert status == 0, wrong
    assert json.loads(told)["samples"] == 2
    assert json.loads(told)["accuracy"] is not None
    assert json.loads(told)["results"] == "owner"
    assert "for the owner of the keys alone" in json.loads(told)["note"]
    status, _, _ = command("run", f["m.fhe"], "--data", tmp_path / "x.npz", "-o", tmp_path / "z.npz")
    assert status == 0
    with np.load(f["y.npz"]) as found, np.load(tmp_path / "z.npz") as wanted:
        for name in wanted.files:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_a_circuit_without_two_sides_is_refused_by_name(zoo, tmp_path, command):
    model = small_network(tables=False)
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", **zoo.samples(model, 40))
    status, _, wrong = command(
        *("compile", tmp_path / "m.onnx", "--calibration", tmp_path / "c.npz", "-o", tmp_path / "m.fhe"),
        *("--backend", "reference", "--halves", "--accept-loss"),
    )
    assert status == 1
    assert "no client and server apart" in wrong
    assert not (tmp_path / "m.fhe").exists(), "it is refused before anything is made"
