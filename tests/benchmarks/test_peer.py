"""benchmarks/peer.py, without the peer: both sides are processes that pretend."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_fhe
from onnx_fhe.ir.errors import DataError, UserError

CLASSES, COUNTS = 4, {"calibration": 40, "validation": 100, "test": 80}

PRETENDER = '''
"""A side that knows the answer and is wrong about some samples: the fewer, the more its setting costs."""
import os, sys, time
sys.path.insert(0, WORKERS)
import numpy as np
from serving import Worker, serve

class Pretender(Worker):
    requests = (*Worker.requests, "bootstrap")
    def hello(self):
        return {"packages": {"pretender": "1"}}
    def load(self, model, calibration):
        self.inputs = ["input"]
        return {}
    def make(self, **setting):
        with open(LOG, "a") as log:
            print(os.getpid(), setting, file=log)
        bits, rounding, p_error = (setting.get(k) for k in ("n_bits", "rounding", "p_error"))
        if bits == 8:
            raise RuntimeError("no parameters\\nfound")
        if bits == 7 and rounding == 4 and p_error is None:
            os._exit(3)
        self.wrong = 0 if bits is None else max(0, 20 - 2 * bits - (rounding or 9))
        cost = 1e6 * 1.4 ** (bits or 1) * 3 ** (rounding or 10) * (1 if p_error else 4)
        return {"bootstraps": 10, "complexity": cost if bits else 1e9, "predicted_seconds": 0.1}
    def outputs(self, samples, mode):
        scores = samples[0].copy()
        if mode != "float":
            bad = scores[:, -1] < self.wrong
            scores[bad, :-1] *= -1
        return scores[:, :-1]
    def make_keys(self):
        pass
    def key_bytes(self):
        return 1000
    def encrypted(self):
        return (lambda x: x), (lambda x: (time.sleep(0.001), x)[1]), (lambda x: self.outputs((x,), "clear"))
    def bootstrap(self):
        return {"milliseconds": 2.0, "p_error": 0.01, "bits": 2}

serve(Pretender)
'''


@pytest.fixture
def peer(root: Path, monkeypatch: pytest.MonkeyPatch):
    """The modules of the benchmark by name."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return lambda name: importlib.import_module(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network that returns its input, and samples whose last value says how easily a pretender fails."""
    folder = tmp_path / "models"
    folder.mkdir()
    weights = {"w1": np.eye(CLASSES + 1, CLASSES), "w2": np.eye(CLASSES)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "w1"], ["x"]),
            helper.make_node("Relu", ["x"], ["y"]),
            helper.make_node("MatMul", ["y", "w2"], ["z"]),
        ],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", CLASSES + 1])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    random = np.random.default_rng(0)
    for part, count in COUNTS.items():
        labels = np.arange(count) % CLASSES
        scores = np.eye(CLASSES)[labels] + random.uniform(0, 0.5, (count, CLASSES))
        data = np.concatenate([scores, np.arange(count)[::-1, None]], axis=1).astype(np.float32)
        np.savez(folder / f"net.{part}.npz", input=data, labels=labels)
    return folder


@pytest.fixture
def run(root: Path, peer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs the command; ``log`` says what the workers compiled."""
    out, log, script = tmp_path / "out" / "peer", tmp_path / "log", tmp_path / "pretender.py"
    workers = root / "benchmarks" / "peers" / "workers"
    script.write_text(f"WORKERS, LOG = {str(workers)!r}, {str(log)!r}\n{PRETENDER}")
    worker = shlex.join([sys.executable, str(script)])

    def call(*options: str) -> SimpleNamespace:
        log.write_text("")
        capsys.readouterr()
        sides = ["--peer-worker", worker, "--our-worker", worker]
        status = peer("peer").main([str(folder), "-o", str(out), "--samples", "3", *sides, *options])
        said = capsys.readouterr()
        made = log.read_text().splitlines()
        return SimpleNamespace(status=status, stdout=said.out, stderr=said.err, log=made, out=out)

    return call


def test_the_whole_comparison(run):
    done = run("--ours", "ours=fast", "--rounding", "net=8", "--rounding", "other=7")
    assert done.status == 0, done.stderr
    report = json.loads(done.out.with_suffix(".json").read_text())
    (model,) = report["models"]
    assert model["float"] == {"validation": 1.0, "test": 1.0}
    settings, chosen = model["sweep"]["settings"], model["sweep"]["chosen"]
    assert len(settings) == 61
    # One that is refused, and one whose process dies, do not end the others.
    assert settings["8 bits, no rounding, default p_error"]["refused"] == "RuntimeError: no parameters found"
    assert "died" in settings["7 bits, round to 4, default p_error"]["refused"]
    # 1 of 100 may be lost: 20 - 2 * bits - rounding <= 1, at the least 1.4^bits * 3^rounding.
    assert chosen["best of its sweep"] == "7 bits, round to 5, p_error 0.01"
    assert settings[chosen["best of its sweep"]]["simulated"] == 0.99
    assert chosen["the same with its default p_error"] == "7 bits, round to 5, default p_error"
    assert chosen["best with its default p_error"] == "7 bits, round to 5, default p_error"
    assert chosen["best rounded to 8"] == "6 bits, round to 8, p_error 0.01"
    # What costs far more than the first that is good enough was never simulated, what is far off was dropped.
    assert "simulated" not in settings["7 bits, round to 7, p_error 0.01"]
    assert settings["3 bits, round to 4, p_error 0.01"]["dropped"] == "90.0% in the clear"
    circuits = {c["name"]: c for c in model["circuits"]}
    assert list(circuits) == [
        "Concrete ML, best of its sweep",
        "Concrete ML, the same with its default p_error",
        "Concrete ML, best rounded to 8",
        "onnx-fhe, ours",
    ]
    for one in circuits.values():
        assert (one["samples"], one["key_bytes"], len(one["runs"])) == (3, 1000, 3)
        assert one["peak_memory_bytes"] > 1e6
        assert one["over_limit"] == pytest.approx(one["seconds"] / (10 * 0.002))
    assert circuits["onnx-fhe, ours"]["predicted_over_limit"] == pytest.approx(5.0)
    assert circuits["Concrete ML, best of its sweep"]["simulated"]["test"] == 79 / 80
    assert (
        "| Concrete ML, best of its sweep | 7 bits, round to 5, p_error 0.01 | 99.0 % | 98.8 ± 1.2 % |"
        in done.stdout
    )
    assert "| Concrete ML, best of its sweep | 98.8 ± 1.2 % | 10 | 2.56 |" in done.stdout
    assert "As it comes (8 bits, no rounding, default p_error): refused" in done.stdout
    assert done.out.with_suffix(".md").read_text() == done.stdout
    assert done.out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_what_is_known_is_not_tried_again(run):
    first = run("--sweep-only")
    assert first.status == 0, first.stderr
    assert len(first.log) > 61
    # The last few settings are lost, as if the run had been broken off there.
    sweep = first.out.with_suffix(".sweep.json")
    known = json.loads(sweep.read_text())
    (entries,) = known["models"].values()
    lost = list(entries["settings"])[-3:]
    for name in lost:
        del entries["settings"][name]
    sweep.write_text(json.dumps(known))
    refused = run("--from-cache")
    assert refused.status == 1
    assert "the sweep of this model is not finished" in refused.stderr
    assert lost[0] in refused.stderr
    assert not refused.log
    second = run("--sweep-only")
    assert len(second.log) == 3
    third = run("--from-cache", "--ours", "fast")
    assert third.status == 0, third.stderr
    # Only what is compared: two settings of the peer and one of ours.
    assert len(third.log) == 3


def test_nothing_good_enough(run):
    done = run("--sweep-only", "--max-accuracy-drop", "-0.5")
    assert done.status == 0, done.stderr
    assert "none loses at most -50 points, so its best is the most accurate" in done.stdout


def test_settings_are_chosen_on_validation_samples(run, folder: Path):
    (folder / "net.validation.npz").unlink()
    done = run()
    assert done.status == 1
    assert "NAME.validation.npz" in done.stderr


def test_a_circuit_needs_a_name_and_a_model(peer, folder: Path, tmp_path: Path):
    circuits = peer("peers.circuits")
    assert circuits.parse("fast") == circuits.Ours("fast", "fast")
    assert circuits.parse("a=quantize{weights=3}").value == "quantize{weights=3}"
    with pytest.raises(UserError, match="needs a name"):
        circuits.parse("quantize{weights=3},lower-to-integer")
    with pytest.raises(UserError, match="none of the models"):
        circuits.check([circuits.Ours("tuned", str(tmp_path))], [folder / "net.onnx"])


def test_a_sweep_is_of_one_model_and_one_version_of_the_peer(peer, folder: Path, tmp_path: Path):
    cache = peer("peers.cache")
    files = [folder / "net.onnx", folder / "net.test.npz"]
    keys = {
        cache.key_of(files, {"peer": "1"}),
        cache.key_of(files, {"peer": "2"}),
        cache.key_of(files[:1], {"peer": "1"}),
    }
    assert len(keys) == 3
    for content in ("[1]", "{", '{"format": 9}'):
        (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(DataError, match="no file of a sweep"):
            cache.Cache(tmp_path / "sweep.json")


def test_measured_seconds_decide_between_close_ones(peer):
    choosing, setting = peer("peers.choosing"), peer("peers.settings").Setting
    figures = {
        setting(4, 5): {"complexity": 10.0, "simulated": 0.95},
        setting(5, 5): {"complexity": 12.0, "simulated": 0.96},
        setting(6, 5): {"complexity": 13.5, "simulated": 0.99},
        setting(3, 5): {"complexity": 5.0, "simulated": 0.90},
        setting(7, 5): {"refused": "why"},
    }
    last = choosing.finalists(figures, 0.95)
    assert last == [setting(4, 5), setting(5, 5)]
    assert choosing.best(figures, last) == setting(4, 5)
    for s, seconds in zip(last, (3.0, 2.0), strict=True):
        figures[s]["encrypted"] = {"processor_seconds": seconds}
    assert choosing.best(figures, last) == setting(5, 5)
    # What measuring does not tell apart accuracy does.
    figures[setting(4, 5)]["encrypted"] = {"processor_seconds": 1.95}
    assert choosing.best(figures, last) == setting(5, 5)
    assert choosing.finalists(figures, 1.0) == [setting(6, 5)]


def test_what_pip_is_asked_for(peer, tmp_path: Path):
    environment = peer("peers.environment")
    wheel = tmp_path / "peer-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        lines = [
            "torch (==2.3.1)",
            "setuptools (==75.3.0)",
            'numpy (==1.26.4) ; python_version >= "3.9"',
            "onnx (==1.17.0)",
        ]
        metadata = "Name: peer\n" + "".join(f"Requires-Dist: {line}\n" for line in lines)
        files.writestr("peer-1.dist-info/METADATA", metadata)
    assert environment.pins(wheel) == [
        'numpy==1.26.4; python_version >= "3.9"',
        "onnx==1.17.0",
        "torch",
        "setuptools",
    ]
    limits = environment.replacements(environment.CONSTRAINTS.read_text())
    assert [line.split("==")[0] for line in limits] == ["torch", "setuptools"]
    assert environment.find_python(None).exists()
    with pytest.raises(UserError, match="no interpreter fits"):
        environment.find_python(tmp_path / "python")


@pytest.mark.encrypted
def test_our_side_answers(root: Path, peer, folder: Path, tmp_path: Path):
    """The real worker of ours, on a circuit with a handful of lookups, compiled and as an artifact."""
    model, calibration, data = (str(folder / f"net.{s}") for s in ("onnx", "calibration.npz", "test.npz"))
    pipeline = "quantize{weights=3 activations=2 inputs=3},lower-to-integer,fuse-tlu,insert-rounding{bits=2}"
    workers = root / "benchmarks" / "peers" / "workers"
    with peer("peers.process").WorkerProcess([sys.executable, workers / "ours.py"]) as process:
        process.ask("load", model=model, calibration=calibration)
        assert len(process.ask("classes", data=data, mode="float")["classes"]) == 80
        made = process.ask("compile", pipeline=pipeline)
        assert made["compile_seconds"] > 0
        assert made["predicted_seconds"] > 0
        assert process.ask("keygen")["key_bytes"] > 1000
        ran = process.ask("evaluate", data=data, index=3)
        assert ran["class"] in range(CLASSES)
        assert ran["processor_seconds"] > 0
        onnx_fhe.compile(model, calibration, pipeline).save(tmp_path / "net.fhe")
        loaded = process.ask("compile", artifact=str(tmp_path / "net.fhe"))
        assert loaded["compile_seconds"] is None
        assert loaded["complexity"] == made["complexity"]
        with pytest.raises(peer("peers.process").WorkerError, match="no such request"):
            process.ask("stop")
