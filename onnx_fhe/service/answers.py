"""What answers look like, for the routes and for the page that describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

BINARY = "application/octet-stream"


class Fault(BaseModel):
    """What is wrong."""

    code: str = Field(description="A word that programs know it by.")
    what: str = Field(description="One sentence that says what is wrong.")
    found: str = Field(description="What was found; may be empty.")
    allowed: str = Field(description="What would be accepted; may be empty.")
    do: str = Field(description="What to do about it; may be empty.")
    request: str = Field(description="The id of the request, as in the service's log.")


class FaultBody(BaseModel):
    """Every answer of status 400 and above."""

    error: Fault


class KeysInfo(BaseModel):
    """Evaluation keys that the service has."""

    id: str = Field(description="Identity of the keys: ciphertexts name it.")
    parameters: str = Field(description="What they serve: circuits of the same parameters.")
    bytes: int = Field(description="Bytes of the file.")


class CircuitInfo(BaseModel):
    """One circuit of a model."""

    batch: int = Field(description="Samples of one call.")
    id: str = Field(description="Its identity: ciphertexts name it.")
    parameters: str = Field(description="What keys have to serve.")


class LimitsInfo(BaseModel):
    """What one request may hold."""

    samples: int = Field(description="Samples.")
    body_bytes: int = Field(description="Bytes of encrypted inputs.")
    key_bytes: int = Field(description="Bytes of a file of evaluation keys.")


class ModelInfo(BaseModel):
    """A model that the service evaluates."""

    name: str = Field(description="What requests call it.")
    circuits: list[CircuitInfo] = Field(description="Its circuits.")
    p_error: float | None = Field(description="Tolerated error of one table lookup.")
    global_p_error: float | None = Field(description="Tolerated error of a whole circuit.")
    security_level: int = Field(description="Bits of security.")
    results: str = Field(
        description="Who may see what is decrypted: the owner of the keys, or anybody (shared)."
    )
    client: bool = Field(description="Whether the service gives the client half: GET /models/NAME/client.")
    limits: LimitsInfo = Field(description="What one request may hold.")


class State(BaseModel):
    """How the service is."""

    status: str = Field(description="ok, or what is not.")
    workers: int = Field(description="Workers that are ready.")
    waiting: int = Field(description="Calls of circuits that wait.")


_MEANINGS = {
    400: "The request or its body is damaged.",
    401: "No token, or an unknown one.",
    404: "There is no such thing, or it is another client's.",
    405: "Another method is needed.",
    408: "The body came too slowly, or not to its end.",
    409: "The body is not what the address says.",
    413: "The body, the samples or the keys are more than is allowed.",
    422: "The ciphertexts or keys do not fit the circuit, or the address has no sense.",
    429: "Too much at the same time: ask again after the seconds of Retry-After.",
    500: "A fault of the service.",
    503: "Workers were lost: ask again after the seconds of Retry-After.",
    507: "The disk of the service is full.",
}


Answers = dict[int | str, dict[str, Any]]
"""Answers of a route by their status, as FastAPI takes them."""


def faults(*statuses: int) -> Answers:
    """The answers of a route that are no success."""
    return {s: {"model": FaultBody, "description": _MEANINGS[s]} for s in (*statuses, 405, 429)}


def with_faults(successes: Answers, *statuses: int) -> Answers:
    """All answers of a route, of which some are a success."""
    return {**successes, **faults(*statuses)}


def binary(what: str) -> dict[str, Any]:
    """An answer that is a file."""
    return {"description": what, "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}}


def binary_body(what: str) -> dict[str, Any]:
    """A request whose body is a file."""
    return {"requestBody": {"required": True, **binary(what)}}
