"""Running the service: uvicorn, with the settings that are safe here."""

from __future__ import annotations

import signal
from pathlib import Path

import uvicorn

from ..ir.errors import UserError
from .app import application
from .connections import watched
from .logs import Log
from .settings import Settings

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of the head of a request."""
IDLE_SECONDS = 30
"""Seconds that a connection may stay open without a request."""


def run(
    settings: Settings,
    host: str,
    port: int,
    certificate: Path | None = None,
    key: Path | None = None,
    log: Log | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that run may end within ``grace_seconds``.

    Args:
        settings: What is served and allowed.
        host, port: Where; port 0 takes one that is free, which the log tells.
        certificate, key: Files for TLS; without, the service speaks plain HTTP.
        log: Where its lines go; standard error by default.

    Raises:
        UserError: The address cannot be used, or the certificate cannot be read.
    """
    log = log or Log()
    app = application(settings, log)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=watched(settings.limits.read_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Nobody in front is believed, so the addresses in headers count for nothing.
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=max(int(settings.limits.grace_seconds), 1),
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
        taken = config.bind_socket()
        # From here on clients wait in its queue: whoever reads that it listens is not turned away.
        taken.listen(config.backlog)
    except (OSError, SystemExit) as error:
        app.state.service.keys.close()
        raise UserError(
            "the service cannot listen here",
            found=f"{host}:{port}" + (f", {error.strerror}" if isinstance(error, OSError) else ""),
            do="give another --port or --host, or check the files of the certificate",
        ) from error
    found = taken.getsockname()
    scheme = "https" if certificate else "http"
    address = f"[{found[0]}]" if ":" in found[0] else found[0]
    log("listening", {"url": f"{scheme}://{address}:{found[1]}", "models": sorted(settings.models)})
    # uvicorn raises the signal again once everything has ended in good order, which then is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[taken])
    log("stopped", {})
