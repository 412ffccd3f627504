"""What a service allows, and where it keeps what it was given."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

MEGABYTE = 1024**2
"""Bytes of a megabyte."""
GIGABYTE = 1024**3
"""Bytes of a gigabyte."""


@dataclass(frozen=True)
class Limits:
    """What one request, one client and all of them may take.

    Attributes:
        body_bytes: Bytes of the encrypted inputs of one request, and of what they unpack to.
        samples: Samples of one request.
        requests: Requests that are answered at the same time.
        held_bytes: Bytes of all encrypted inputs that are in memory at the same time.
        queue: Calls of circuits that may wait when a request comes.
        uploads: Keys that are uploaded at the same time.
        key_bytes: Bytes of one file of evaluation keys.
        client_keys_bytes: Bytes of all keys of one client.
        keys_bytes: Bytes of all keys.
        keys_days: Days without use after which keys go; they count while the service runs.
        read_seconds: Seconds in which the head of a request has to come, and then some part of its body.
        bytes_per_second: Bytes that a body has to bring each second, on average, after ``read_seconds``.
        call_seconds: Seconds that one call of a circuit may take; a worker that takes longer is ended.
        worker_key_bytes: Bytes of memory for keys in each worker.
        grace_seconds: Seconds that requests get to end when the service is stopped.
    """

    body_bytes: int = 64 * MEGABYTE
    samples: int = 1000
    requests: int = 256
    held_bytes: int = GIGABYTE
    queue: int = 512
    uploads: int = 8
    key_bytes: int = GIGABYTE
    client_keys_bytes: int = 4 * GIGABYTE
    keys_bytes: int = 20 * GIGABYTE
    keys_days: float = 30.0
    read_seconds: float = 20.0
    bytes_per_second: int = 10_000
    call_seconds: float = 600.0
    worker_key_bytes: int = 2 * GIGABYTE
    grace_seconds: float = 60.0


@dataclass(frozen=True)
class Settings:
    """A service.

    Attributes:
        models: Files of server halves by the name that requests call them.
        store: Folder of the evaluation keys.
        clients: Client halves that are given to whoever asks, by the name of the model.
        tokens: Name of the client by token; None: whoever reaches the service may use it.
        workers: Processes that compute, where there is no Dask cluster.
        dask: Address of the scheduler of a Dask cluster whose machines compute; None for this machine.
        limits: What is allowed.
        evict: Whether the keys that were used least recently make room for others.
    """

    models: dict[str, Path]
    store: Path
    clients: dict[str, Path] = field(default_factory=dict)
    tokens: dict[str, str] | None = None
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    limits: Limits = field(default_factory=Limits)
    evict: bool = False
    dask: str | None = None
