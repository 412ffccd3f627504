"""A service whose calls go to a Dask cluster: the same answers, and a worker that is lost costs no sample."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from services import bearer

pytest.importorskip("distributed")

import distributed

from onnx_fhe.cli.app import main
from onnx_fhe.ir.errors import UserError
from onnx_fhe.sides.ciphertexts import EncryptedResults

pytestmark = pytest.mark.encrypted


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("cluster"))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=folder
    ) as made:
        yield made


@pytest.fixture
def service(serving, cluster):
    made = serving(dask=cluster.scheduler_address)
    made.wait_until_ready()
    return made


def workers(cluster) -> list[int]:
    return [w.pid for w in cluster.workers.values() if w.pid]


def test_results_are_those_of_a_run_without_a_service_though_a_worker_is_killed(
    service, cluster, alice, table
):
    service.put(alice)
    for killed in (False, True):
        asked = alice.encrypt(table.some(4))
        if killed:
            os.kill(workers(cluster)[0], signal.SIGKILL)
        answer = service.evaluate(asked.to_bytes(), model="table")
        assert answer.status_code == 200, answer.text
        found = alice.decrypt(EncryptedResults.load(answer.content), asked=asked)
        np.testing.assert_array_equal(found["y"], table.expected(4))
    metrics = service.http.get("/metrics", headers=bearer("alice")).text
    assert 'onnx_fhe_samples_total{model="table"} 8.0' in metrics


def test_refusals_are_those_of_the_services_own_workers(service, alice, table):
    service.put(alice)
    asked = alice.encrypt(table.some(1))
    call = {name: content[:-1] for name, content in asked.calls[0].items()}
    answer = service.evaluate(type(asked)(asked.header, (call,)).to_bytes(), model="table")
    assert answer.status_code == 422
    assert "damaged" in answer.json()["error"]["what"]
    assert service.evaluate(asked.to_bytes(), name="bob", model="table").status_code == 404


def test_a_call_that_takes_too_long_ends_its_worker(serving, cluster, alice, table):
    before = workers(cluster)
    service = serving(dask=cluster.scheduler_address, call_seconds=0.001)
    service.wait_until_ready()
    service.put(alice)
    answer = service.evaluate(alice.encrypt(table.some(1)).to_bytes(), model="table")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too-long")
    until = time.monotonic() + 30
    while set(workers(cluster)) >= set(before) or len(workers(cluster)) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_without_a_cluster_nothing_is_served(serving, monkeypatch):
    monkeypatch.setattr("onnx_fhe.cluster.WAIT", "1s")
    with pytest.raises(UserError, match="no Dask cluster"):
        serving(dask="tcp://127.0.0.1:9")


def test_workers_are_either_here_or_there(circuit, tmp_path, capsys):
    line = ["serve", str(circuit.server), "--store", str(tmp_path / "s"), "--no-tokens"]
    with pytest.raises(SystemExit) as done:
        main([*line, "--workers", "2", "--dask", "tcp://127.0.0.1:9"])
    assert done.value.code == 1
    assert "leave --workers out" in " ".join(capsys.readouterr().err.split())
