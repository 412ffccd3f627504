"""Faults of processes, disks and clients: nothing acknowledged is lost, nothing wrong is returned."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

import onnx_fhe
from onnx_fhe.sides.ciphertexts import EncryptedResults

pytestmark = pytest.mark.encrypted


def workers(service) -> list[int]:
    """Process numbers of the workers that are ready."""
    gone = {e["worker"] for e in service.events("worker ended")}
    return [e["pid"] for e in service.events("worker ready") if e["worker"] not in gone]


def test_a_worker_that_is_killed_costs_time_and_no_sample(launch, table, alices_keys):
    service = launch(workers=2, of=table)
    service.wait_for("worker ready", 2)
    remote = onnx_fhe.RemoteProgram(service.url, table.client, alices_keys)
    killer = threading.Timer(0.0, lambda: None)

    def progress(what, done, total):
        nonlocal killer
        # In the midst of the first request.
        if done == 0:
            killer = threading.Timer(1.0, os.kill, (workers(service)[0], signal.SIGKILL))
            killer.start()

    result = remote.run(table.some(40), progress=progress)
    killer.join()
    np.testing.assert_array_equal(result.outputs["y"], table.expected(40))
    (ended,) = service.wait_for("worker ended")
    assert ended["exit"] == -signal.SIGKILL
    # The worker is there again.
    service.wait_for("worker ready", 3)
    assert {e["status"] for e in service.events("request") if e["route"].endswith("evaluate")} == {200}


def test_a_service_that_restarts_has_the_keys_still(launch, ask, table, alice):
    keys, asked = alice.evaluation_keys(), alice.encrypt(table.some(1))
    first = launch(of=table)
    assert ask.put(f"{first.url}/keys/{keys.id}", content=keys.to_bytes()).status_code == 201
    # Without any warning: what was acknowledged is on the disk.
    first.stop(signal.SIGKILL)
    second = launch(of=table)
    answer = ask.post(f"{second.url}/models/net/evaluate", content=asked.to_bytes())
    assert answer.status_code == 200, answer.text
    found = alice.decrypt(EncryptedResults.load(answer.content), asked=asked)
    np.testing.assert_array_equal(found["y"], table.expected(1))


def test_sigterm_lets_requests_end(launch, table, alices_keys):
    service = launch(of=table)
    service.wait_for("worker ready")
    remote = onnx_fhe.RemoteProgram(service.url, table.client, alices_keys)
    remote.upload_keys()
    pids = [psutil.Process(pid) for pid in service.pids]
    stop = threading.Timer(0.6, service.process.send_signal, (signal.SIGTERM,))
    stop.start()
    result = remote.run(table.some(16))
    np.testing.assert_array_equal(result.outputs["y"], table.expected(16))
    assert service.process.wait(30) == 0
    assert service.events("stopped")
    left = psutil.wait_procs(pids, timeout=10)[1]
    assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]


def test_a_client_that_hangs_holds_no_worker(launch, circuit):
    service = launch("--read-seconds", "1")
    service.wait_for("worker ready")
    place = urlsplit(service.url)
    hanging = [socket.create_connection((place.hostname, place.port)) for _ in range(5)]
    head = b"POST /models/net/evaluate HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\nabc"
    for each in hanging[:4]:
        each.sendall(head)
    hanging[4].sendall(head[:20])
    silent = [socket.create_connection((place.hostname, place.port)) for _ in range(2)]
    result = onnx_fhe.RemoteProgram(service.url, circuit.client).run(circuit.some(2))
    np.testing.assert_array_equal(result.outputs["y"], circuit.expected(2))
    for each in hanging[:4]:
        each.settimeout(10)
        assert b" 408 " in each.recv(1000)
    # Without a whole head there is no request: the connection is closed, and its descriptor is free.
    for each in (*silent, hanging[4]):
        each.settimeout(10)
        assert each.recv(1000) == b""
    for each in (*hanging, *silent):
        each.close()


def test_an_upload_that_breaks_off_leaves_nothing(launch, table, alice):
    service = launch(of=table)
    keys = alice.evaluation_keys()
    content, place = keys.to_bytes(), urlsplit(service.url)
    head = f"PUT /keys/{keys.id} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    with socket.create_connection((place.hostname, place.port)) as broken:
        broken.sendall(head + content[: len(content) // 2])
        until = time.monotonic() + 10
        while not list((service.store / "uploads").iterdir()):
            assert time.monotonic() < until
            time.sleep(0.01)
    service.wait_for("request")
    assert not list((service.store / "uploads").iterdir())
    assert not list((service.store / "keys").rglob("*.keys"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
def test_a_full_disk_keeps_nothing_and_says_so(launch, ask, table, alice, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts no file system")
    try:
        service = launch(of=table, store=small / "store")
        keys = alice.evaluation_keys()
        answer = ask.put(f"{service.url}/keys/{keys.id}", content=keys.to_bytes())
        assert answer.status_code == 507
        assert ask.get(f"{service.url}/keys").json() == []
        assert not list((service.store / "uploads").iterdir())
        service.stop()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_second_service_on_one_store_is_refused(launch, circuit):
    first = launch()
    second = subprocess.run(
        [
            sys.executable,
            "-m",
            "onnx_fhe",
            "serve",
            str(circuit.server),
            "--store",
            str(first.store),
            "--no-tokens",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert "another service uses this store" in second.stderr
