"""``serve``: a circuit's server half over HTTP."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .options import dask_option

if TYPE_CHECKING:
    from ..service.settings import Settings

_GB = 1024**3
"""Bytes of a gigabyte."""
_MB = 1024**2
"""Bytes of a megabyte."""


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL.server...",
            help="Server halves; each is called as its network, or NAME.",
            show_default=False,
        ),
    ],
    store: Annotated[
        Path,
        typer.Option("--store", metavar="FOLDER", help="Where evaluation keys are kept.", show_default=False),
    ],
    tokens: Annotated[
        Path | None,
        typer.Option(
            "--tokens",
            metavar="FILE",
            help="A private file with a line name:token for each client.",
            show_default=False,
        ),
    ] = None,
    no_tokens: Annotated[
        bool, typer.Option("--no-tokens", help="Serve whoever reaches the service, without tokens.")
    ] = False,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes one that is free.")
    ] = 8080,
    open_to_all: Annotated[
        bool,
        typer.Option("--open-to-all", help="Allow --no-tokens on another address than this machine's own."),
    ] = False,
    certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="PEM", help="Certificate, for HTTPS.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="PEM", help="The certificate's private key.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="Processes that compute [default: one a core]."),
    ] = None,
    dask: Annotated[
        str | None,
        dask_option("Compute on the workers of the Dask cluster at this address, and not here."),
    ] = None,
    offer_client: Annotated[
        list[Path] | None,
        typer.Option(
            "--offer-client",
            metavar="MODEL.client",
            help="Give this client half to whoever asks; may be given several times.",
        ),
    ] = None,
    keys_days: Annotated[
        float, typer.Option("--keys-days", metavar="N", min=0.001, help="Days without use until keys go.")
    ] = 30.0,
    max_keys_bytes: Annotated[
        int, typer.Option("--max-keys-bytes", metavar="N", min=1, help="Bytes of all keys.")
    ] = 20 * _GB,
    max_client_keys_bytes: Annotated[
        int, typer.Option("--max-client-keys-bytes", metavar="N", min=1, help="Bytes of a client's keys.")
    ] = 4 * _GB,
    max_key_bytes: Annotated[
        int, typer.Option("--max-key-bytes", metavar="N", min=1, help="Bytes of one file of keys.")
    ] = _GB,
    evict_keys: Annotated[
        bool, typer.Option("--evict-keys", help="Keys that were used least recently make room for others.")
    ] = False,
    max_body_bytes: Annotated[
        int, typer.Option("--max-body-bytes", metavar="N", min=1, help="Bytes of the inputs of a request.")
    ] = 64 * _MB,
    max_samples: Annotated[
        int, typer.Option("--max-samples", metavar="N", min=1, help="Samples of a request.")
    ] = 1000,
    max_requests: Annotated[
        int, typer.Option("--max-requests", metavar="N", min=1, help="Requests at the same time.")
    ] = 256,
    max_queue: Annotated[
        int, typer.Option("--max-queue", metavar="N", min=1, help="Calls that may wait for a worker.")
    ] = 512,
    worker_key_bytes: Annotated[
        int, typer.Option("--worker-key-bytes", metavar="N", min=1, help="Memory for keys in each worker.")
    ] = 2 * _GB,
    read_seconds: Annotated[
        float,
        typer.Option("--read-seconds", metavar="N", min=0.1, help="For a head; pause of a body."),
    ] = 20.0,
    call_seconds: Annotated[
        float, typer.Option("--call-seconds", metavar="N", min=1, help="Longest call of a circuit.")
    ] = 600.0,
    grace: Annotated[
        float,
        typer.Option("--grace", metavar="SECONDS", min=1, help="How long running requests may take to end."),
    ] = 60.0,
) -> None:
    """Serve circuits over HTTP: keys are uploaded once, encrypted inputs become encrypted results."""
    with output.working():
        _check_openness(host, tokens, no_tokens, open_to_all)
        _check_place(workers, dask)
        from ..service.models import matched_clients, named_files
        from ..service.settings import Limits, Settings
        from ..service.tokens import read_tokens

        limits = Limits(
            body_bytes=max_body_bytes,
            samples=max_samples,
            requests=max_requests,
            queue=max_queue,
            key_bytes=max_key_bytes,
            client_keys_bytes=max_client_keys_bytes,
            keys_bytes=max_keys_bytes,
            keys_days=keys_days,
            read_seconds=read_seconds,
            call_seconds=call_seconds,
            worker_key_bytes=worker_key_bytes,
            grace_seconds=grace,
        )
        files = named_files(models)
        settings = Settings(
            models=files,
            store=store,
            clients=matched_clients(files, offer_client or []),
            tokens=None if tokens is None else read_tokens(tokens),
            workers=workers or _cores(),
            limits=limits,
            evict=evict_keys,
            dask=dask,
        )
        _run(settings, host, port, certificate, key)


def _run(settings: Settings, host: str, port: int, certificate: Path | None, key: Path | None) -> None:
    from ..service.running import run

    run(settings, host, port, certificate, key)


def _check_openness(host: str, tokens: Path | None, no_tokens: bool, open_to_all: bool) -> None:
    from ..ir.errors import UserError

    if (tokens is None) != no_tokens:
        raise UserError(
            "who may use the service has to be said",
            found="both --tokens and --no-tokens" if no_tokens else "neither --tokens nor --no-tokens",
            allowed="one of them",
            do="--tokens FILE with a line name:token for each client, or --no-tokens for whoever reaches it",
        )
    if no_tokens and not _is_local(host) and not open_to_all:
        raise UserError(
            "without tokens, anybody who reaches this address could use the service",
            found=f"--host {host}",
            allowed="127.0.0.1",
            do="give --tokens FILE; or --open-to-all, where something else keeps others out",
        )


def _check_place(workers: int | None, dask: str | None) -> None:
    from ..ir.errors import UserError

    if workers is not None and dask is not None:
        raise UserError(
            "the cluster has its own workers",
            found=f"--workers {workers} and --dask {dask}",
            allowed="one of them",
            do="leave --workers out, and start as many `dask worker` as shall compute",
        )


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
