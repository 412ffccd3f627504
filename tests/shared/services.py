"""Services that tests start, in this process and in others."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from starlette.testclient import TestClient

import onnx_fhe

TOKENS = {"alice": "a" * 32, "bob": "b" * 32}
"""Tokens by the name of the client."""


def bearer(name: str) -> dict[str, str]:
    """The header of a client."""
    return {"Authorization": f"Bearer {TOKENS[name]}"}


@dataclass
class Running:
    """A service in this process."""

    http: TestClient
    log: io.StringIO
    store: Path

    def close(self) -> None:
        """Shut down in good order."""
        self.http.__exit__(None, None, None)

    def put(self, client: onnx_fhe.Client, name: str = "alice", content: bytes | None = None):
        keys = client.evaluation_keys()
        body = keys.to_bytes() if content is None else content
        return self.http.put(f"/keys/{keys.id}", content=body, headers=bearer(name))

    def wait_until_ready(self) -> None:
        """Wait for the first worker."""
        until = time.monotonic() + 60
        while self.http.get("/ready").status_code != 200:
            assert time.monotonic() < until, self.log.getvalue()
            time.sleep(0.05)

    def evaluate(self, body: bytes, name: str = "alice", model: str = "net"):
        return self.http.post(f"/models/{model}/evaluate", content=body, headers=bearer(name))

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@dataclass
class Process:
    """A service in a process of its own."""

    process: subprocess.Popen
    url: str
    log: Path
    store: Path

    def events(self, name: str) -> list[dict]:
        """What the log tells of an event."""
        lines = [json.loads(x) for x in self.log.read_text().splitlines() if x.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_for(self, name: str, count: int = 1, seconds: float = 60) -> list[dict]:
        until = time.monotonic() + seconds
        while len(found := self.events(name)) < count:
            assert time.monotonic() < until, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    @property
    def pids(self) -> list[int]:
        """All its processes, the youngest last."""
        import psutil

        top = psutil.Process(self.process.pid)
        return [top.pid, *(p.pid for p in top.children(recursive=True))]
