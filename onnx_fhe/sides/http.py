"""Talking to a service: what can be asked again is, and what it refuses becomes an error of ours."""

from __future__ import annotations

import random
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import httpx

from ..ir.errors import ServiceError, UserError, printable

AGAIN = (429, 502, 503, 504)
"""Statuses after which the same request may succeed."""
CONNECT_SECONDS = 10.0
"""Seconds until a service has to take a connection."""
ANSWER_SECONDS = 3600.0
"""Seconds until an answer has to come: large circuits take minutes a sample, and many samples may wait."""
FIRST_PAUSE_SECONDS = 0.5
"""Pause before a request is sent again, where the service does not say; it doubles each time."""
MAX_PAUSE_SECONDS = 30.0
"""Longest pause before a request is sent again."""


class Connection:
    """A service at an address.

    Args:
        url: Where, such as ``https://example.org:8080``.
        token: Sent with every request.
        certificate: File of the certificates that are believed, besides those of the system.
        patience: Seconds for which a request is tried again where the service is busy or away.
        transport: What carries requests, for tests.

    Raises:
        UserError: The address is none.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        certificate: str | None = None,
        patience: float = 120.0,
        transport: Any = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                "this is no address of a service",
                found=url,
                allowed="http://HOST:PORT or https://HOST:PORT",
            )
        self.url, self._patience = url.rstrip("/"), patience
        self.is_open = parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")
        try:
            verify = True if certificate is None else ssl.create_default_context(cafile=certificate)
            self._client = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                verify=verify,
                transport=transport,
            )
        except (OSError, UnicodeError) as error:
            raise UserError(
                "the certificate cannot be read, or the token is none",
                file=certificate or "",
                found=type(error).__name__,
            ) from error

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def ask(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        """Send a request until it is answered.

        Args:
            method, path, content: The request; it may reach the service more than once.

        Raises:
            ServiceError: The service refuses, or is away or busy for longer than ``patience``.
        """
        until, pause = time.monotonic() + self._patience, FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = self._client.request(method, path, content=content)
            except httpx.HTTPError as error:
                failed = self._away(error)
            else:
                if answer.status_code < 400:
                    return answer
                failed = self._refused(answer)
                if answer.status_code not in AGAIN:
                    raise failed
                told = answer.headers.get("retry-after", "")
                pause = max(pause, float(told)) if told.isdigit() else pause
            # Clients that were refused together shall not come back together.
            wait = min(pause, MAX_PAUSE_SECONDS) * random.uniform(0.75, 1.25)
            if time.monotonic() + wait > until:
                raise failed
            time.sleep(wait)
            pause *= 2

    def _away(self, error: Exception) -> ServiceError:
        return ServiceError(
            "the service cannot be reached",
            found=f"{self.url}: {error}" if str(error) else f"{self.url}: {type(error).__name__}",
            do="check the address, and whether the service runs (GET /health)",
        )

    def _refused(self, answer: httpx.Response) -> ServiceError:
        """The error that an answer tells; what it says is text of whoever answered."""
        told: dict[str, str] = {}
        try:
            plain = answer.json()["error"]
            told = {k: printable(str(plain.get(k, ""))) for k in ("code", "what", "found", "allowed", "do")}
        except (ValueError, KeyError, TypeError, AttributeError):
            told = {"what": "", "found": f"status {answer.status_code}"}
        made = ServiceError(
            told.get("what") or "the service refuses, and does not say why",
            found=told.get("found", ""),
            allowed=told.get("allowed", ""),
            do=told.get("do", ""),
        )
        made.code = told.get("code", "")
        return made
