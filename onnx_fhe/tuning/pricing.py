"""What an integer-level model will cost, before anything is compiled."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..machine import Profile, predict


@dataclass(frozen=True)
class Machine:
    """What circuits will run on.

    Attributes:
        profile: Times of the machine.
        cores: Cores that one sample may use.
    """

    profile: Profile
    cores: int


@dataclass(frozen=True)
class Price:
    """The cost of one sample.

    Attributes:
        seconds: Latency.
        samples_per_second: Throughput.
        key_bytes: Evaluation keys, as they are sent.
        bootstraps: Programmable bootstraps.
        complexity: Operations.
    """

    seconds: float
    samples_per_second: float
    key_bytes: int
    bootstraps: int
    complexity: float


def price(model: ir.Model, p_error: float, machine: Machine) -> Price:
    """Predict what a model of the integer level costs."""
    found = predict(model, machine.profile, p_error=p_error, cores=machine.cores)
    return Price(found.seconds, found.throughput, found.key_bytes, found.bootstraps, found.complexity)
