"""What one sample will take: seconds, bytes of keys and ciphertexts, and the time to make the circuit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from ..analysis.cost.cost import CostEstimate, estimate, estimate_float
from ..analysis.cost.parameters import Step, key_bytes
from ..backends.statistics import CircuitStatistics
from ..cores import usable_cores
from ..ir.level import Level, level_of
from ..ir.p_error import DEFAULT_P_ERROR
from .profile import Profile


@dataclass(frozen=True)
class Prediction:
    """What is expected of one sample, and of the keys.

    Attributes:
        seconds: Time of one sample, its loops spread over all cores.
        core_seconds: Time of one sample on one core.
        throughput: Samples a second, each core with a sample of its own.
        bootstraps: Programmable bootstraps of one sample.
        complexity: Operations of one sample, as Concrete counts them.
        key_bytes: Evaluation keys as they are sent (compressed).
        expanded_key_bytes: Evaluation keys as they are used.
        input_bytes, output_bytes: Ciphertexts of one sample.
        memory_bytes: Memory of a process that computes.
        compile_seconds: Making the circuit of the integer model; 0 where that is done.
        keygen_seconds: Making the keys, on one core.
        cores: That ``seconds`` and ``throughput`` are for.
        basis: ``circuit``: Concrete's own parameters; ``model``: those that it will probably choose.
        profile: Where the times come from, in words.
    """

    seconds: float
    core_seconds: float
    throughput: float
    bootstraps: int
    complexity: float
    key_bytes: int
    expanded_key_bytes: int
    input_bytes: int
    output_bytes: int
    memory_bytes: int
    compile_seconds: float
    keygen_seconds: float
    cores: int
    basis: Literal["model", "circuit"]
    profile: str


def predict(
    of: ir.Model | CostEstimate | CircuitStatistics,
    profile: Profile | None = None,
    *,
    p_error: float = DEFAULT_P_ERROR,
    cores: int | None = None,
    batch: int = 1,
) -> Prediction:
    """Predict what one sample takes; or one call, where it takes several.

    Args:
        of: A model of the integer level, a normalized float model (taken to have 4 bits at every table), what
            ``estimate`` made of one, or the statistics of a circuit.
        profile: Profile of the machine; by default what was measured here, or else the default.
        p_error: Tolerated error of one lookup, where ``of`` is a model that does not say.
        cores: By default those of the profile, and of this machine where the profile is of this one.
        batch: Samples of a call, of a circuit. Bootstraps, complexity, seconds and ciphertexts are then those
            of a call; throughput still counts samples.
    """
    known = profile or Profile.here()
    used = cores or (known.cores if profile is not None else usable_cores())
    if isinstance(of, CircuitStatistics):
        return _of_circuit(of, known, used, batch)
    if isinstance(of, ir.Model):
        of = estimate(of, p_error) if level_of(of) is Level.INTEGER else estimate_float(of, p_error=p_error)
    # Compiled twice, to compare parameter strategies; with one table there is nothing to compare.
    times = 1.0 if len(of.layers) > 1 else 0.5
    return _predicted(
        known,
        used,
        of.steps,
        of.products,
        other=0.0,
        bootstraps=of.bootstraps,
        complexity=of.complexity,
        ciphertexts=(of.input_bytes, of.output_bytes),
        compile_seconds=times * (known.compile_seconds + known.compile_seconds_per_node * of.nodes),
        basis="model",
    )


def _of_circuit(found: CircuitStatistics, profile: Profile, cores: int, batch: int) -> Prediction:
    other = 0.0
    if batch > 1:
        found = replace(
            found,
            programmable_bootstraps=batch * found.programmable_bootstraps,
            complexity=batch * found.complexity,
            input_bytes=batch * found.input_bytes,
            output_bytes=batch * found.output_bytes,
            steps=tuple(replace(s, count=batch * s.count) for s in found.steps),
            linear_products=batch * found.linear_products,
        )
    if not found.steps and found.programmable_bootstraps:
        # Tables of many bits, or a backend that tells no more: only the whole is known.
        each = found.complexity / found.programmable_bootstraps
        other = found.programmable_bootstraps * profile.milliseconds(each) / 1e3
    return _predicted(
        profile,
        cores,
        found.steps,
        found.linear_products,
        other=other,
        bootstraps=found.programmable_bootstraps,
        complexity=found.complexity,
        ciphertexts=(found.input_bytes, found.output_bytes),
        compile_seconds=0.0,
        basis="circuit",
        whole=found.evaluation_key_bytes,
        batch=batch,
    )


def _predicted(
    profile: Profile,
    cores: int,
    steps: tuple[Step, ...],
    products: float,
    *,
    other: float,
    bootstraps: int,
    complexity: float,
    ciphertexts: tuple[int, int],
    compile_seconds: float,
    basis: Literal["model", "circuit"],
    whole: int = 0,
    batch: int = 1,
) -> Prediction:
    linear = products * profile.nanoseconds_per_product / 1e9
    efficiency = profile.loop_efficiency if cores > 1 else 1.0
    alone = profile.timings.seconds(steps) + linear + other
    together = profile.timings.seconds(steps, cores, efficiency) + (linear + other) / (cores * efficiency)
    expanded = sum(key_bytes(steps)) or whole
    jobs = profile.job_efficiency if cores > 1 else 1.0
    return Prediction(
        seconds=together,
        core_seconds=alone,
        throughput=batch * cores * jobs / alone if alone else 0.0,
        bootstraps=bootstraps,
        complexity=complexity,
        key_bytes=sum(key_bytes(steps, sent=True)) or whole,
        expanded_key_bytes=expanded,
        input_bytes=ciphertexts[0],
        output_bytes=ciphertexts[1],
        memory_bytes=int(profile.memory_bytes + profile.memory_per_key_byte * expanded),
        compile_seconds=compile_seconds,
        keygen_seconds=profile.keygen_seconds + profile.keygen_seconds_per_byte * expanded,
        cores=cores,
        basis=basis,
        profile=profile.describe(),
    )
