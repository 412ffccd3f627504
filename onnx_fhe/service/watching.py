"""Around every request: its id, its line in the log, its numbers, and how many there may be at once."""

from __future__ import annotations

import secrets
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .refusals import Refusal, busy
from .service import Service

_ALWAYS = ("/health", "/ready", "/metrics")
"""Routes that answer however busy the service is."""


class Watched:
    """Middleware.

    Args:
        app: What answers.
        service: Whose requests these are.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["id"] = identity
        began = time.monotonic()
        facts: dict[str, Any] = {"status": 0, "received": 0, "sent": 0}

        async def receiving() -> Message:
            message = await receive()
            facts["received"] += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
            facts["sent"] += len(message.get("body", b""))
            await send(message)

        service = self._service
        service.requests += 1
        try:
            if service.requests > service.limits.requests and scope["path"] not in _ALWAYS:
                await _send(
                    busy(
                        "as many requests are answered as may at the same time",
                        found=f"{service.requests} requests",
                        allowed=f"{service.limits.requests}",
                    ),
                    scope,
                    receiving,
                    sending,
                )
            else:
                await self._app(scope, receiving, sending)
        except Exception as error:  # noqa: BLE001 - a defect of ours is one answer, and the service goes on
            service.log("defect", {"request": identity, "what": f"{type(error).__name__}: {error}"[:500]})
            if not facts["status"]:
                await _send(
                    Refusal(500, "defect", "a defect of the service", do="tell its operator"),
                    scope,
                    receiving,
                    sending,
                )
        finally:
            service.requests -= 1
            self._count(scope, state, facts, time.monotonic() - began)

    def _count(self, scope: Scope, state: dict[str, Any], facts: dict[str, Any], seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "-")
        metrics = self._service.metrics
        metrics.requests.labels(_method(scope), route, facts["status"]).inc()
        metrics.seconds.labels(route).observe(seconds)
        metrics.received.inc(facts["received"])
        metrics.sent.inc(facts["sent"])
        facts |= {k: state[k] for k in ("client", "model", "samples") if k in state}
        # The route, and not the path: a path may hold whatever somebody pasted there.
        named = {"request": state["id"], "method": _method(scope), "route": route}
        self._service.log("request", {**named, **facts, "seconds": round(seconds, 4)})


def _method(scope: Scope) -> str:
    known = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH")
    return scope["method"] if scope["method"] in known else "other"


async def _send(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    body = refusal.body(scope["state"]["id"])
    await JSONResponse(body, refusal.status, refusal.headers)(scope, receive, send)
