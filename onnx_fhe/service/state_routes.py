"""Routes for whoever looks after the service: health, readiness, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from .answers import State, faults, with_faults
from .refusals import Refusal
from .service import At, Service, owner_of

router = APIRouter(tags=["state"])
TEXT = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/health", responses=faults())
async def health(at: At) -> State:
    """Whether the service answers; needs no token."""
    return _state("ok", at)


@router.get("/ready", responses=faults(503))
async def ready(at: At) -> State:
    """Whether a worker has compiled all circuits, so that requests are computed at once; needs no token."""
    if not at.workers.ready:
        raise Refusal(
            503,
            "not-ready",
            "no worker is ready yet",
            do="ask again; requests wait until one is",
            retry=2,
        )
    return _state("ready", at)


@router.get(
    "/metrics",
    response_class=Response,
    responses=with_faults(
        {200: {"description": "In Prometheus' text format.", "content": {"text/plain": {}}}}, 401
    ),
    dependencies=[Depends(owner_of)],
)
async def metrics(at: At) -> Response:
    """Counters of requests, seconds, samples, bytes, keys, workers and what waits."""
    return Response(at.metrics.page(), media_type=TEXT)


def _state(status: str, at: Service) -> State:
    return State(status=status, workers=at.workers.ready, waiting=len(at.units))
