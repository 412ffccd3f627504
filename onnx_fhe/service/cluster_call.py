"""What runs on a worker of a Dask cluster for the service: a call, whose errors are answers."""

from __future__ import annotations

from ..sides.ciphertexts import Call
from ..sides.dask_worker import evaluate_call
from .worker import Answer, answered


def answer_call(circuit: str, half: bytes, identity: str, keys: bytes, batch: int, call: Call) -> Answer:
    """Evaluate one call; the arguments are those of ``evaluate_call``."""
    return answered(lambda: evaluate_call(circuit, half, identity, keys, batch, call)[0])
