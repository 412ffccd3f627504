"""Routes of models: what there is, the client half, and the evaluation of encrypted inputs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from .answers import BINARY, CircuitInfo, LimitsInfo, ModelInfo, binary, binary_body, faults, with_faults
from .evaluation import evaluated
from .models import Model
from .refusals import Refusal, busy
from .service import At, Owner, Service, owner_of

router = APIRouter(prefix="/models", tags=["models"], dependencies=[Depends(owner_of)])

Name = Annotated[str, Path(description="The name of the model, as GET /models lists it.")]


@router.get("", responses=faults(401))
async def listed(at: At) -> list[ModelInfo]:
    """The models of this service."""
    return [_info(model, at) for model in at.models.values()]


@router.get("/{name}", responses=faults(401, 404))
async def look(name: Name, at: At) -> ModelInfo:
    """What the service says of a model."""
    return _info(_model(name, at), at)


@router.get(
    "/{name}/client",
    response_class=Response,
    responses=with_faults(
        {200: binary("The client half, for `onnx-fhe keygen`, `encrypt` and `decrypt`.")}, 401, 404
    ),
)
async def client(name: Name, at: At) -> Response:
    """The client half of a model, where the service's operator offers it."""
    content = _model(name, at).client
    if content is None:
        raise Refusal(
            404,
            "no-client-half",
            "the service does not give the client half of this model",
            found=name,
            do="ask its operator for it",
        )
    return Response(content, media_type=BINARY)


@router.post(
    "/{name}/evaluate",
    response_class=Response,
    responses=with_faults(
        {200: binary("Encrypted results, for `onnx-fhe decrypt`.")}, 400, 401, 404, 408, 413, 422, 503
    ),
    openapi_extra=binary_body("Encrypted inputs of one or many samples, as `onnx-fhe encrypt` writes them."),
)
async def evaluate(name: Name, request: Request, at: At, owner: Owner) -> Response:
    """Compute on encrypted inputs. The evaluation keys that encrypted them have to be uploaded before."""
    model = _model(name, at)
    request.state.model = name
    check_queue(at)
    body = await at.held.read(request)
    try:
        check_queue(at)
        results = await evaluated(body, model, owner, request, at)
    finally:
        at.held.release(body)
    request.state.samples = results.samples
    at.metrics.samples.labels(name).inc(results.samples)
    return Response(results.to_bytes(), media_type=BINARY)


def check_queue(at: Service) -> None:
    """Refuse work where much waits already.

    Raises:
        Refusal: The queue is full.
    """
    if len(at.units) >= at.limits.queue:
        raise busy(
            "as many calls wait as may",
            found=f"{len(at.units)} calls",
            allowed=f"fewer than {at.limits.queue}",
        )


def _model(name: str, at: Service) -> Model:
    if name not in at.models:
        raise Refusal(
            404,
            "unknown-model",
            "there is no such model",
            found=name,
            allowed=", ".join(at.models),
            do="see GET /models",
        )
    return at.models[name]


def _info(model: Model, at: Service) -> ModelInfo:
    header = model.header
    return ModelInfo(
        name=model.name,
        circuits=[CircuitInfo(**vars(c)) for c in header.circuits],
        p_error=header.p_error,
        global_p_error=header.global_p_error,
        security_level=header.security_level,
        results=header.results,
        client=model.client is not None,
        limits=LimitsInfo(
            samples=at.limits.samples, body_bytes=at.limits.body_bytes, key_bytes=at.limits.key_bytes
        ),
    )
