"""A Dask cluster that computes: it gets no secret key, and a worker that is lost costs time and no sample."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("distributed")

import distributed

import onnx_fhe
from onnx_fhe.cli.app import main
from onnx_fhe.ir.errors import DataError, UserError
from onnx_fhe.sides.ciphertexts import Ciphertexts, EncryptedResults
from onnx_fhe.sides.dask_evaluator import DaskEvaluator

pytestmark = pytest.mark.encrypted
SAMPLES = 8


@pytest.fixture(scope="module")
def program(table):
    return table.program


@pytest.fixture(scope="module")
def data(table):
    return table.some(SAMPLES)


@pytest.fixture(scope="module")
def halves(program):
    return onnx_fhe.split(program)


@pytest.fixture(scope="module")
def client(alice):
    return alice


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("cluster"))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=folder
    ) as made:
        yield made


@pytest.fixture(scope="module")
def evaluator(cluster, halves):
    with DaskEvaluator(cluster.scheduler_address, halves[1].to_bytes()) as made:
        yield made


@pytest.fixture(scope="module")
def asked(client, data):
    return client.encrypt(data)


def workers(cluster) -> list[int]:
    return [w.pid for w in cluster.workers.values() if w.pid]


def test_results_come_in_order_and_are_those_of_one_machine(program, evaluator, client, asked, data):
    told: list[int] = []
    results = evaluator.evaluate(asked, client.evaluation_keys(), lambda _, done, __: told.append(done))
    assert told == list(range(SAMPLES + 1))
    np.testing.assert_equal(client.decrypt(results, asked=asked), program.run(data).outputs)
    assert evaluator.evaluations.jobs == 2
    assert len(evaluator.evaluations.seconds) == SAMPLES


def test_workers_get_the_half_the_evaluation_keys_and_ciphertexts_and_nothing_else(
    cluster, halves, client, asked, monkeypatch
):
    keys, half = client.evaluation_keys(), halves[1].to_bytes()
    sent: list[bytes] = []

    def record(real):
        def call(_, *given, **options):
            sent.extend(
                content
                for value in given
                for content in (value.values() if isinstance(value, dict) else [value])
                if isinstance(content, bytes)
            )
            return real(_, *given, **options)

        return call

    for name in ("scatter", "submit"):
        monkeypatch.setattr(distributed.Client, name, record(getattr(distributed.Client, name)))
    one = Ciphertexts(replace(asked.header, samples=1), asked.calls[:1])
    with DaskEvaluator(cluster.scheduler_address, half) as made:
        made.evaluate(one, keys)
    assert sent == [half, keys.content, *asked.calls[0].values()]


def test_workers_that_are_killed_cost_no_sample(cluster, evaluator, program, client, asked, data):
    first, killed = workers(cluster)[0], []

    def kill(_: str, done: int, __: int) -> None:
        # One of them, and then all that there are: with them the keys and the half are lost.
        for pid in {2: [first], 5: workers(cluster)}.get(done, []):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    results = evaluator.evaluate(asked, client.evaluation_keys(), kill)
    assert first in killed
    assert len(killed) >= 2
    np.testing.assert_equal(client.decrypt(results, asked=asked), program.run(data).outputs)


def test_a_program_runs_there_and_so_does_the_command(
    cluster, program, data, client, asked, tmp_path, capsys
):
    address = cluster.scheduler_address
    few = {k: v[:3] for k, v in data.items()}
    result = program.encrypted(few, dask=address)
    np.testing.assert_equal(result.outputs, program.run(few).outputs)
    assert set(result.seconds) >= {"keygen", "encrypt", "evaluate", "decrypt"}
    assert result.evaluations.jobs == 2
    program.save(tmp_path / "m.fhe")
    onnx_fhe.split(program)[1].save(tmp_path / "m.server")
    client.evaluation_keys().save(tmp_path / "e.keys")
    asked.save(tmp_path / "in.enc")
    line = [
        "evaluate",
        "m.server",
        "in.enc",
        "--evaluation-keys",
        "e.keys",
        "-o",
        "out.enc",
        "--dask",
        address,
    ]
    with pytest.raises(SystemExit) as done:
        main([str(tmp_path / x) if "." in x and ":" not in x else x for x in line])
    assert done.value.code == 0
    assert "samples a second" in capsys.readouterr().out
    found = client.decrypt(EncryptedResults.load(tmp_path / "out.enc"), asked=asked)
    np.testing.assert_equal(found, program.run(data).outputs)


def test_a_fault_of_the_request_comes_back_as_it_is(evaluator, client, asked, bob):
    call = {name: content[:-1] for name, content in asked.calls[0].items()}
    damaged = Ciphertexts(asked.header, (call, *asked.calls[1:]))
    with pytest.raises(DataError, match="damaged"):
        evaluator.evaluate(damaged, client.evaluation_keys())
    with pytest.raises(DataError, match="other keys"):
        evaluator.evaluate(asked, bob.evaluation_keys())


def test_without_a_cluster_the_address_is_named(halves, monkeypatch):
    monkeypatch.setattr("onnx_fhe.cluster.WAIT", "1s")
    with pytest.raises(UserError, match="no Dask cluster") as caught:
        DaskEvaluator("tcp://127.0.0.1:9", halves[1].to_bytes())
    assert "tcp://127.0.0.1:9" in str(caught.value)
