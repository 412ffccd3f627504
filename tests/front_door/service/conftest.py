"""Services that serve the small circuits."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from services import TOKENS, Process, Running
from small_circuits import Circuit
from starlette.testclient import TestClient

from onnx_fhe.service.app import application
from onnx_fhe.service.logs import Log
from onnx_fhe.service.settings import Limits, Settings


@contextmanager
def _services(circuit: Circuit, table: Circuit, place: Path) -> Iterator[Callable[..., Running]]:
    """Starts services in this process, and ends them."""
    opened: list[Running] = []

    def start(
        workers: int = 0,
        evict: bool = False,
        store: Path | None = None,
        dask: str | None = None,
        **limits,
    ) -> Running:
        log = io.StringIO()
        tokens = {token: name for name, token in TOKENS.items()}
        settings = Settings(
            {"net": circuit.server, "table": table.server},
            store or place / "store",
            tokens=tokens,
            workers=workers,
            limits=Limits(**limits),
            evict=evict,
            dask=dask,
        )
        client = TestClient(application(settings, Log(log)))
        client.__enter__()
        opened.append(Running(client, log, settings.store))
        return opened[-1]

    yield start
    for service in opened:
        service.close()


@pytest.fixture
def serving(circuit, table, tmp_path):
    """Starts services in this process: ``serving(workers=0)`` and ``Limits`` by name."""
    with _services(circuit, table, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def serving_module(circuit, table, tmp_path_factory):
    """As ``serving``; the service is there for all tests of a file."""
    with _services(circuit, table, tmp_path_factory.mktemp("service")) as start:
        yield start


@pytest.fixture
def launch(circuit, tmp_path):
    """Starts services in processes of their own."""
    started: list[Process] = []

    def start(
        *options: str,
        workers: int = 1,
        tokens: bool = False,
        store: Path | None = None,
        of: Circuit = circuit,
    ) -> Process:
        place = store or tmp_path / "store"
        log = tmp_path / f"log{len(started)}"
        access = ["--no-tokens"]
        if tokens:
            file = tmp_path / "tokens"
            file.write_text("".join(f"{name}:{token}\n" for name, token in TOKENS.items()))
            file.chmod(0o600)
            access = ["--tokens", str(file)]
        command = [sys.executable, "-W", "ignore", "-m", "onnx_fhe", "serve", str(of.server)]
        more = ["--store", str(place), *access, "--port", "0", "--workers", str(workers), *options]
        with log.open("w") as target:
            process = subprocess.Popen(command + more, stderr=target, stdout=target, env=dict(os.environ))
        made = Process(process, "", log, place)
        started.append(made)
        made.url = made.wait_for("listening")[0]["url"]
        return made

    yield start
    for made in started:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


@pytest.fixture
def ask():
    """Requests to a service in another process, with a time limit."""
    with httpx.Client(timeout=60) as client:
        yield client
