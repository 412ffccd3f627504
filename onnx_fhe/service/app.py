"""The service as an application that any ASGI server runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from . import key_routes, model_routes, state_routes
from .logs import Log
from .refusals import Refusal
from .service import Service
from .settings import Settings
from .watching import Watched

DESCRIPTION = """Computes on encrypted data. A client encrypts with keys that never leave it, and sends
ciphertexts; the service computes on them with evaluation keys, which decrypt nothing, and returns encrypted
results.

Send `Authorization: Bearer TOKEN` with every request where the service knows its clients by tokens."""


def application(settings: Settings, log: Log | None = None) -> FastAPI:
    """The application; its workers run from its start-up to its shutdown.

    Args:
        settings: What it serves and allows.
        log: Where its lines go; standard error by default.

    Raises:
        ArtifactError: A server half cannot be read.
        OutputError: The store cannot be written.
    """
    service = Service(settings, log)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.stop()

    app = FastAPI(
        title="onnx-fhe",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        # Pages that load scripts from elsewhere; GET /openapi.json is there for any viewer.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for routes in (key_routes, model_routes, state_routes):
        app.include_router(routes.router)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Watched, service=service)
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.body(request.state.id), error.status, error.headers)


async def _http(request: Request, error: Exception) -> Response:
    """What no route of ours answers."""
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, "http", str(error.detail), do="see GET /openapi.json")
    return JSONResponse(refusal.body(request.state.id), error.status_code, dict(error.headers or {}))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    refusal = Refusal(
        422, "invalid", "the request does not fit its address", found=f"{place}: {first['msg']}"
    )
    return JSONResponse(refusal.body(request.state.id), 422)
