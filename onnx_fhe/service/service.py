"""What all routes share: the models, the keys, the workers and what waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, Request

from .bodies import HeldBytes
from .cluster_workers import ClusterWorkers
from .keystore import KeyStore
from .logs import Log
from .metrics import Metrics
from .models import read_models
from .refusals import Refusal
from .settings import Settings
from .tokens import client_of
from .units import Units
from .workers import Workers


class Service:
    """One service.

    Args:
        settings: What it serves and allows.
        log: Where its lines go.
    """

    def __init__(self, settings: Settings, log: Log | None = None) -> None:
        self.settings, self.limits = settings, settings.limits
        self.log = log or Log()
        self.models = read_models(settings)
        self.units = Units()
        # Before the store, which a service without its cluster does not take.
        self.workers: Workers | ClusterWorkers = (
            ClusterWorkers(settings, settings.dask, self.units, self._happened)
            if settings.dask
            else Workers(settings, self.units, self._happened)
        )
        self.keys = KeyStore(settings)
        self.held = HeldBytes(settings.limits)
        self.metrics = Metrics()
        self.requests = 0
        self.uploads = asyncio.Semaphore(settings.limits.uploads)
        self._watch()

    def start(self) -> None:
        """Start the workers; they are ready some seconds later."""
        self.workers.start()

    def stop(self) -> None:
        """End the workers and leave the store."""
        self.units.close()
        self.workers.stop()
        self.keys.close()

    def _happened(self, event: str, facts: Mapping[str, object]) -> None:
        if event in ("worker ended", "call lost"):
            self.metrics.lost.labels(event).inc()
        self.log(event, facts)

    def _watch(self) -> None:
        for name, what, read in (
            ("waiting_calls", "Calls of circuits that wait for a worker.", lambda: len(self.units)),
            ("workers_ready", "Workers that are ready.", lambda: self.workers.ready),
            ("workers_busy", "Workers that compute.", lambda: self.workers.busy),
            ("open_requests", "Requests that are being answered.", lambda: self.requests),
            ("keys", "Evaluation keys in the store.", lambda: self.keys.count),
            ("keys_bytes", "Bytes of them.", lambda: self.keys.bytes),
            ("held_bytes", "Bytes of encrypted inputs in memory.", lambda: self.held.bytes),
        ):
            self.metrics.watch(name, what, read)


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    found: Service = request.app.state.service
    return found


def owner_of(request: Request) -> str:
    """The name of the client that asks.

    Raises:
        Refusal: Nobody who is known.
    """
    name = client_of(request.headers.get("authorization"), service_of(request).settings.tokens)
    if name is None:
        raise Refusal(
            401,
            "unknown-client",
            "the service does not know who asks",
            allowed="a header Authorization: Bearer TOKEN",
            do="send the token that the service's operator gave you",
        )
    request.state.client = name
    return name


At = Annotated[Service, Depends(service_of)]
Owner = Annotated[str, Depends(owner_of)]
