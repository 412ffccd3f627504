"""A small circuit in two halves, clients with keys of their own, and services that serve it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from services import TOKENS, Circuit, Process, Running
from starlette.testclient import TestClient

import onnx_fhe
from onnx_fhe.service.app import application
from onnx_fhe.service.logs import Log
from onnx_fhe.service.settings import Limits, Settings

PIPELINE = "quantize{weights=2 activations=2 inputs=2},lower-to-integer,fuse-tlu"


def _made(node: onnx.NodeProto, weights: list[np.ndarray], size: int, folder: Path) -> Circuit:
    constants = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    shape = ("N", size)
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in ("input", "y")]
    graph = helper.make_graph([node], "g", values[:1], values[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), folder / "net.onnx")
    samples = {"input": np.random.default_rng(0).normal(size=(64, size)).astype(np.float32)}
    # Tables are exact: encrypted outputs are those of the integer model.
    program = onnx_fhe.compile(
        folder / "net.onnx", samples, PIPELINE, p_error=1e-9, check_samples=0, accept_loss=True
    )
    for half, name in zip(onnx_fhe.split(program), ("net.client", "net.server"), strict=True):
        half.save(folder / name)
    return Circuit(program, folder / "net.client", folder / "net.server", samples)


@pytest.fixture(scope="session")
def circuit(tmp_path_factory) -> Circuit:
    """A linear network: its keys are a few bytes, and it takes milliseconds."""
    weights = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    node = helper.make_node("Gemm", ["input", "w0"], ["y"], name="gemm")
    return _made(node, [weights], 4, tmp_path_factory.mktemp("linear"))


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Circuit:
    """A network with table lookups: its keys are real ones, of 11 MB."""
    return _made(
        helper.make_node("Relu", ["input"], ["y"], name="relu"), [], 2, tmp_path_factory.mktemp("table")
    )


@pytest.fixture(scope="session")
def linear(circuit) -> onnx_fhe.Client:
    """A client of the linear network; without tables evaluation keys hold nothing, and all are the same."""
    return circuit.new_client()


@pytest.fixture(scope="session")
def alice(table) -> onnx_fhe.Client:
    return table.new_client()


@pytest.fixture(scope="session")
def bob(table) -> onnx_fhe.Client:
    return table.new_client()


@pytest.fixture
def serving(circuit, table, tmp_path):
    """Starts services in this process: ``serving(workers=0)`` and ``Limits`` by name."""
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
            store or tmp_path / "store",
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
