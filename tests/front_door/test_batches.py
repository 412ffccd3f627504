"""Circuits for several samples a call are part of the artifact, and of its halves."""

from __future__ import annotations

import copy
import json
import pickle
import zipfile

import numpy as np
import onnx_ir
import pytest
from quick_programs import quick_program

import onnx_fhe
from onnx_fhe.backends.concrete.circuit import ConcreteCircuit
from onnx_fhe.batches import placed, taken
from onnx_fhe.cli.app import main
from onnx_fhe.ir.errors import ArtifactError, UnsupportedError, UserError
from onnx_fhe.testing.integers import IntegerBuilder


@pytest.fixture(scope="module")
def quick():
    return quick_program(batch=[2, 1, 3])


@pytest.fixture(scope="module")
def program(quick):
    return quick[0]


@pytest.fixture(scope="module")
def samples(quick):
    return quick[1]


@pytest.fixture(scope="module")
def file(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "m.fhe"
    program.save(path)
    return path


@pytest.fixture(scope="module")
def loaded(file):
    return onnx_fhe.Program.load(file)


def test_a_program_has_the_circuits_that_were_asked_for(program, loaded):
    for found in (program, loaded, copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        assert list(found.circuits) == [1, 2, 3]
        assert found.circuits[1] is found.circuit
        assert found.circuits[3].session().batch == 3
    one = program.statistics.programmable_bootstraps
    assert [b.samples for b in loaded.manifest.batches] == [2, 3]
    for batch in loaded.manifest.batches:
        assert batch.statistics.programmable_bootstraps == batch.samples * one


def test_their_files_lie_in_folders_of_their_own(file):
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    for n in (2, 3):
        assert f"client/batches/{n}/specs.json" in names
        assert f"server/batches/{n}/circuit.mlir" in names
    assert "server/circuit.mlir" in names
    files = {"client/specs.json": b"a", "server/circuit.mlir": b"b"}
    every = placed(files, 1) | placed({k: v * 2 for k, v in files.items()}, 12)
    assert taken(every, 1) == files
    assert taken(every, 12) == {k: v * 2 for k, v in files.items()}
    assert taken(every, 2) == {}


@pytest.mark.encrypted
def test_a_run_takes_the_circuit_that_is_there(loaded, samples, monkeypatch):
    def compiled(*_):
        raise AssertionError("it was compiled again")

    monkeypatch.setattr(ConcreteCircuit, "of", compiled)
    data = {k: v[:3] for k, v in samples.items()}
    result = loaded.run(data, "encrypted", batch=2)
    assert result.evaluations.batch == 2
    np.testing.assert_equal(result.outputs, loaded.run(data).outputs)
    with pytest.raises(AssertionError, match="compiled again"):
        loaded.run(data, "encrypted", batch=4)


@pytest.mark.encrypted
def test_the_halves_have_them_and_the_same_keys_serve(loaded, samples):
    client_half, server_half = onnx_fhe.split(loaded)
    client, server = onnx_fhe.Client(client_half), onnx_fhe.Server(server_half)
    entries = client.header.circuits
    assert [e.batch for e in entries] == [1, 2, 3]
    assert len({e.id for e in entries}) == 3
    assert len({e.parameters for e in entries}) == 1
    keys, data = client.keygen(), {k: v[:3] for k, v in samples.items()}
    for batch in (1, 2):
        results = server.evaluate(client.encrypt(data, batch), keys)
        assert len(results.calls) == -(-3 // batch)
        np.testing.assert_equal(client.decrypt(results), loaded.run(data).outputs)
    with pytest.raises(ArtifactError, match="no circuit for so many") as caught:
        client.encrypt(data, 5)
    assert "1, 2, 3" in str(caught.value)


def test_an_artifact_of_before_still_loads(file, tmp_path):
    with zipfile.ZipFile(file) as archive:
        parts = {n: archive.read(n) for n in archive.namelist() if "/batches/" not in n}
    manifest = json.loads(parts["manifest.json"])
    del manifest["batches"]
    manifest["parts"] = {n: h for n, h in manifest["parts"].items() if n in parts}
    parts["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(tmp_path / "old.fhe", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    old = onnx_fhe.Program.load(tmp_path / "old.fhe")
    assert list(old.circuits) == [1]
    assert old.circuit.recorded() is not None


def test_a_batch_that_costs_something_else_is_refused(file, tmp_path):
    with zipfile.ZipFile(file) as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    manifest = json.loads(parts["manifest.json"])
    manifest["batches"][0]["statistics"]["programmable_bootstraps"] += 1
    parts["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(tmp_path / "other.fhe", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    other = onnx_fhe.Program.load(tmp_path / "other.fhe")
    assert other.circuits[3] is not None
    with pytest.raises(ArtifactError, match="not the one that its manifest describes"):
        other.circuits[2]


def test_samples_that_cannot_be_computed_together_are_refused_with_the_reason():
    b = IntegerBuilder()
    turned = b.op("Transpose", b.encrypt("x", (4,)), perm=[1, 0])
    b.decrypt(b.op("Transpose", b.op("Neg", turned), perm=[1, 0]))
    with pytest.raises(UnsupportedError, match="together") as caught:
        onnx_fhe.compile(b.model(), None, "analyze-bit-widths", batch=2)
    assert caught.value.where.op == "Transpose"
    with pytest.raises(UnsupportedError, match="one sample a call only") as caught:
        quick_program(batch=2, backend="reference")
    assert "--batch" in caught.value.do


@pytest.mark.parametrize("wrong", [0, -2, [2, 0]])
def test_a_number_that_no_call_has_is_refused(wrong):
    with pytest.raises(UserError, match="no call has so many samples"):
        quick_program(batch=wrong)


def test_the_command_line_tells_what_a_call_costs(program, samples, tmp_path, capsys):
    onnx_ir.save(program.integer_model, tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", **samples)
    file = str(tmp_path / "m.fhe")
    line = ["compile", str(tmp_path / "m.onnx"), "--calibration", str(tmp_path / "c.npz"), "-o", file]
    for command in (
        [*line, "-p", "analyze-bit-widths", "--batch", "2", "--self-test", "0", "--accept-loss", "--json"],
        ["inspect", file],
    ):
        with pytest.raises(SystemExit) as done:
            main(command)
        assert done.value.code == 0
        told = capsys.readouterr().out
        if "--json" in command:
            (found,) = json.loads(told)["batches"]
            assert found["samples"] == 2
            assert found["predicted"]["bootstraps"] > 0
    assert "--batch 2" in told
    assert "bootstraps a call" in told
