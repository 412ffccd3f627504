"""Evaluating samples in parallel: order, timing, and what is refused."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import onnx_fhe
from onnx_fhe import calls
from onnx_fhe.backends.base import EncryptedSession
from onnx_fhe.cli.app import main
from onnx_fhe.evaluating import encrypted
from onnx_fhe.ir.errors import UserError
from onnx_fhe.running import Stopwatch


class Sleeping(EncryptedSession):
    """Takes longer for the first samples of a batch than for the last, so that they overtake each other."""

    def __init__(self, slow: float = 0.0) -> None:
        self.slow = slow
        self.alone: list[int] = []
        self.together: list[int] = []
        self.busy = self.most = 0
        self.lock = threading.Lock()

    def keygen(self):
        pass

    def encrypt(self, values):
        return dict(values)

    def evaluate(self, ciphertexts):
        self.together.append(int(ciphertexts["x"][0, 0]))
        time.sleep(self.slow)
        return ciphertexts

    def evaluate_alone(self, ciphertexts):
        with self.lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
            number = int(ciphertexts["x"][0, 0])
            self.alone.append(number)
        time.sleep(0.02 if number % 2 else 0.005)
        with self.lock:
            self.busy -= 1
        return ciphertexts

    def decrypt(self, ciphertexts):
        return {"y": ciphertexts["x"]}

    def evaluation_keys(self):
        return b""


VALUES = {"x": np.arange(9)[:, None]}


def run(jobs):
    session, timed, told = Sleeping(), Stopwatch(), []
    found, evaluations = encrypted(session, VALUES, timed, lambda *a: told.append(a), jobs)
    assert np.array_equal(found["y"], VALUES["x"])
    assert told[-1] == ("run encrypted", 9, 9)
    assert set(timed.seconds) == {"encrypt", "evaluate", "decrypt"}
    assert len(evaluations.seconds) == 9
    assert evaluations.jobs == jobs
    return session, evaluations


def test_one_after_the_other_uses_all_cores_for_each():
    session, _ = run(1)
    assert session.together == list(range(9))
    assert not session.alone


def test_several_at_a_time_keep_their_order_and_the_first_goes_alone():
    session, evaluations = run(3)
    assert not session.together
    assert session.alone[0] == 0
    assert session.most == 3
    assert evaluations.throughput > 1.5 / evaluations.latency


@pytest.mark.parametrize(("slow", "best"), [(0.1, 3), (0.0, 1)])
def test_auto_measures_both_ways_and_goes_on_with_the_better(monkeypatch, slow, best):
    monkeypatch.setattr(calls, "usable_cores", lambda: 3)
    session, values = Sleeping(slow), {"x": np.arange(20)[:, None]}
    found, evaluations = encrypted(session, values, Stopwatch(), lambda *_: None, "auto")
    assert np.array_equal(found["y"], values["x"])
    assert evaluations.jobs == best
    assert set(evaluations.rates) == {1, 3}
    assert max(evaluations.rates, key=evaluations.rates.get) == best
    # The first, two in loops, one that loads, six in threads: the others count.
    assert evaluations.counted == 10
    assert len(session.together if best == 1 else session.alone) >= 10
    assert len(evaluations.seconds) == 20


def test_auto_needs_something_to_go_on_with(monkeypatch):
    monkeypatch.setattr(calls, "usable_cores", lambda: 3)
    session = Sleeping()
    _, evaluations = encrypted(session, VALUES, Stopwatch(), lambda *_: None, "auto")
    assert (evaluations.jobs, evaluations.rates, evaluations.counted) == (1, {}, 8)
    assert session.together == list(range(9))


@pytest.mark.parametrize("jobs", [1, 3])
def test_several_samples_a_call_keep_their_order(jobs):
    session, told = Sleeping(), []
    session.batch = 4
    found, evaluations = encrypted(session, VALUES, Stopwatch(), lambda *a: told.append(a), jobs)
    assert np.array_equal(found["y"], VALUES["x"])
    assert [done for _, done, _ in told] == [0, 4, 8, 9]
    # The first call does not count; the last holds one sample.
    assert (evaluations.counted, evaluations.samples, evaluations.batch) == (2, 5, 4)
    assert evaluations.throughput == pytest.approx(5 / evaluations.wall)


def test_a_single_sample():
    _, evaluations = encrypted(Sleeping(), {"x": np.zeros((1, 1))}, Stopwatch(), lambda *_: None, 4)
    assert evaluations.latency == evaluations.seconds[0]
    assert evaluations.throughput == pytest.approx(1 / evaluations.wall)


def test_programs_and_the_command_line(digits_mlp, tmp_path, capsys):
    data = {k: v[:5] for k, v in digits_mlp.calibration_data.items()}
    text = "normalize,quantize{weights=3},lower-to-integer,fuse-tlu"
    program = onnx_fhe.compile(digits_mlp.model, data, text, "reference")
    results = [program.encrypted(data, jobs=j) for j in (1, 3)]
    for name, array in results[0].outputs.items():
        assert np.array_equal(array, results[1].outputs[name])
    with pytest.raises(UserError, match="0 jobs"):
        program.encrypted(data, jobs=0)
    program.save(tmp_path / "m.fhe")
    np.savez(tmp_path / "d.npz", **data)
    command = ["run", str(tmp_path / "m.fhe"), "--data", str(tmp_path / "d.npz"), "--mode", "encrypted"]
    with pytest.raises(SystemExit) as done:
        main([*command, "--jobs", "2"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "2 at a time" in printed
    assert "predicted" in printed
    with pytest.raises(SystemExit) as done:
        main([*command, "--jobs", "auto"])
    assert done.value.code == 0
    with pytest.raises(SystemExit) as done:
        main([*command, "--batch", "2"])
    assert done.value.code == 0
    assert "calls of 2 samples" in capsys.readouterr().out
    for wrong in ("0", "many"):
        with pytest.raises(SystemExit) as done:
            main([*command, "--jobs", wrong])
        assert done.value.code == 2
