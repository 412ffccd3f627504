"""The service as its process starts it."""

from __future__ import annotations

import signal
import socket
from urllib.parse import urlsplit

import pytest

from onnx_fhe.service import running
from onnx_fhe.service.settings import Settings

pytestmark = pytest.mark.encrypted


def test_what_is_said_to_listen_takes_connections(circuit, tmp_path, monkeypatch):
    """Whoever waits for the line in the log connects at once, before uvicorn has come so far."""
    monkeypatch.setattr(running.uvicorn.Server, "run", lambda *_, **__: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    connected: list[str] = []

    def log(event: str, fields: dict) -> None:
        if event == "listening":
            place = urlsplit(fields["url"])
            socket.create_connection((place.hostname, place.port), timeout=5).close()
            connected.append(event)

    settings = Settings({"net": circuit.server}, tmp_path / "store", workers=0)
    running.run(settings, "127.0.0.1", 0, log=log)
    assert connected == ["listening"]
