"""A finished circuit, the errors of encryption included, against the network as it was imported."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ..analysis.noise.noise import NoisyModel
from ..analysis.outputs.expectation import Expectation
from ..backends.base import Circuit
from ..backends.reference import ReferenceCircuit, count_overflows
from ..backends.sides import Progress, quiet
from ..ir.batch_runner import Arrays
from ..ir.errors import FidelityError, ModelError
from ..ir.p_error import DEFAULT_P_ERROR
from ..ir.partition import Parts, partition
from ..ir.runtime import Session
from ..ir.sample_axes import depending
from ..passes.compress.shrink.judge import Judge
from ..prologue import Prologue
from .causes import steps_of
from .figures import MAX_REMEMBERED_COLUMNS, Fidelity, OutputFigures, Step
from .measure import Comparison, compare
from .verdict import Finding, judge, worst
from .words import advice, headline, sentences

SIMULATION_SECONDS = 8.0
"""Simulation stops after this long."""
MAX_SIMULATED_SAMPLES = 500
"""Samples that are compared at most."""


def measured_fidelity(
    source: ir.Model,
    model: ir.Model,
    circuit: Circuit,
    data: Mapping[str, np.ndarray] | None,
    *,
    labels: np.ndarray | None,
    kept: Mapping[Step, ir.Model],
    unfitted: np.ndarray | None = None,
    expected: Expectation | None = None,
    progress: Progress,
) -> tuple[Fidelity | None, list[str]]:
    """``check_circuit``, and what is wrong; or why there is nothing to compare.

    Args:
        unfitted: Indices of the samples that nothing was trained on, where something was trained; else None.
        expected: On new inputs, where a pass has found that already.
    """
    if data is None:
        return None, ["without calibration data the circuit was not compared with the network; give some"]
    try:
        fidelity = check_circuit(source, model, circuit, data, labels=labels, kept=kept, progress=progress)
    except ModelError as error:
        found = error.found or error.what
        return None, [
            f"the network as it was given does not run, so the circuit was not compared with it: {found}"
        ]
    if expected is None and unfitted is not None and len(unfitted):
        p_error = circuit.statistics().p_error or DEFAULT_P_ERROR
        expected = Judge(source, data, unfitted, 0, p_error).expect(model)
    if expected is not None:
        fidelity = with_expectation(fidelity, expected)
    return fidelity, list(fidelity.sentences)


def with_expectation(found: Fidelity, expected: Expectation) -> Fidelity:
    """Put what is expected on new inputs first: samples that trained a circuit tell little about those."""
    headline = f"{expected}; {found.headline} (weights were fitted to most of them)"
    return replace(found, expected=expected, headline=headline)


def check_circuit(
    source: ir.Model,
    model: ir.Model,
    circuit: Circuit,
    data: Mapping[str, np.ndarray],
    *,
    labels: np.ndarray | None = None,
    kept: Mapping[Step, ir.Model] | None = None,
    seconds: float = SIMULATION_SECONDS,
    progress: Progress = quiet,
) -> Fidelity:
    """Compare a circuit with its network on calibration data.

    Args:
        source: The network as it was imported.
        model: The integer-level model of the circuit.
        circuit: The circuit.
        data: Calibration data by input name, samples on axis 0.
        labels: (samples) classes, where known.
        kept: The network after steps on the way, to find out which of them lost most.
        seconds: Time of simulating; the noise model stands in for the circuit on the samples after that.
        progress: Called with (what, done, total).
    """
    given = len(next(iter(data.values())))
    part = {k: v[:MAX_SIMULATED_SAMPLES] for k, v in data.items()}
    parts = partition(model)
    values: Arrays = Prologue(parts).run(part)[0]
    decrypted = _simulated(circuit, values, seconds, progress)
    simulated = len(next(iter(decrypted.values())))
    mine = _finished(parts, decrypted, {k: v[:simulated] for k, v in part.items()})
    samples = len(next(iter(part.values())))
    if simulated < samples:
        mine = _filled(mine, model, {k: v[simulated:] for k, v in part.items()}, circuit.statistics().p_error)
    wanted, mine = _of_samples(source, Session(source).run_batched(part), mine)
    found = compare(wanted, mine, model, None if labels is None else labels[:samples])
    findings = judge(found, samples)
    fidelity = replace(
        fidelity_of(found, findings, samples, given, noise=not isinstance(circuit, ReferenceCircuit)),
        simulated=simulated,
    )
    if not findings:
        return fidelity
    overflows = count_overflows(parts.server, {k: v[:samples] for k, v in values.items()}).samples
    cause, steps = steps_of(kept or {}, model, part, wanted, found, overflows)
    told = [*fidelity.sentences, *([advice(cause)] if cause else [])]
    return replace(fidelity, cause=cause, steps=steps, sentences=tuple(told))


def _of_samples(source: ir.Model, wanted: Arrays, found: Arrays) -> tuple[Arrays, Arrays]:
    """What can be compared sample by sample: outputs that are constant belong to none."""
    names = depending(source)
    pairs = [(k, v, w) for (k, v), w in zip(wanted.items(), found.values(), strict=True) if k in names]
    return {k: v for k, v, _ in pairs}, {k: w for k, _, w in pairs}


def check_model(
    source: ir.Model, model: ir.Model, data: Mapping[str, np.ndarray], labels: np.ndarray | None = None
) -> Fidelity:
    """Compare a model of any level, as it runs, with the network that it was made from."""
    given = len(next(iter(data.values())))
    wanted, mine = _of_samples(source, *(Session(m).run_batched(data) for m in (source, model)))
    found = compare(wanted, mine, source, labels)
    return fidelity_of(found, judge(found, given), given, given, noise=False)


def expected_fidelity(
    source: ir.Model,
    model: ir.Model,
    data: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    p_error: float,
) -> Fidelity:
    """Compare an integer-level model, with the errors of encryption, with its network."""
    given = len(next(iter(data.values())))
    part = {k: v[:MAX_SIMULATED_SAMPLES] for k, v in data.items()}
    wanted, mine = _of_samples(
        source, Session(source).run_batched(part), NoisyModel(model, p_error).run(part)
    )
    samples = len(next(iter(part.values())))
    found = compare(wanted, mine, source, None if labels is None else labels[:samples])
    return fidelity_of(found, judge(found, samples), samples, given, noise=True)


def fidelity_of(
    found: Comparison, findings: list[Finding], samples: int, given: int, *, noise: bool
) -> Fidelity:
    """What was measured, with its verdict and its words."""
    return Fidelity(
        samples,
        given,
        noise,
        _shown(found.outputs),
        max(0, len(found.outputs) - MAX_REMEMBERED_COLUMNS),
        worst(found.outputs),
        found.classes,
        found.median_sample_error,
        found.far,
        found.far_count,
        findings[0].verdict if findings else "good",
        headline(found, samples, given),
        sentences(findings),
    )


def require_faithful(found: Fidelity | None, told: Sequence[str] = (), *, accepted: bool) -> None:
    """Refuse what has collapsed.

    Args:
        found: What was measured, if anything was.
        told: What is wrong with the data that it was measured on.
        accepted: Whether the user wants it all the same.

    Raises:
        FidelityError: The circuit has collapsed.
    """
    if found is None or found.verdict != "collapse" or accepted:
        return
    helps = advice(found.cause)
    wrong = [s for s in found.sentences if s != helps]
    raise FidelityError(
        "the circuit computes something else than the network; it was not written",
        found="; ".join([found.headline, *wrong[:2], *told]),
        allowed="outputs that follow the network with an R^2 of 0.5 or more, and predictions that are better"
        " than guessing",
        do="; ".join(
            [*([helps] if helps else []), "--accept-loss writes it all the same (accept_loss=True in Python)"]
        ),
    )


def _simulated(circuit: Circuit, values: Arrays, seconds: float, progress: Progress) -> Arrays:
    """As many samples as there is time for."""
    total, done, size = len(next(iter(values.values()))), 0, 4
    parts: list[Arrays] = []
    began = time.perf_counter()
    while done < total and size:
        progress("compare with the network", done, total)
        parts.append(circuit.simulate({k: v[done : done + size] for k, v in values.items()}))
        done = min(done + size, total)
        spent = time.perf_counter() - began
        size = min(2 * size, int(done * max(seconds - spent, 0) / max(spent, 1e-9)))
    progress("compare with the network", total, total)
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def _filled(
    simulated: Arrays, model: ir.Model, rest: Mapping[str, np.ndarray], p_error: float | None
) -> Arrays:
    """Outputs of all samples, in order: what there was no time for comes from the noise model."""
    noisy = NoisyModel(model, p_error or DEFAULT_P_ERROR).run(rest)
    pairs = zip(simulated.items(), noisy.values(), strict=True)
    return {name: np.concatenate([first, more]) for (name, first), more in pairs}


def _finished(parts: Parts, decrypted: Arrays, data: Mapping[str, np.ndarray]) -> Arrays:
    """The outputs that a client makes of what was decrypted."""
    epilogue = Session(parts.epilogue)
    given = {**data, **{k: v.astype(np.float32) for k, v in decrypted.items()}}
    return epilogue.run_batched({k: given[k] for k in epilogue.inputs})


def _shown(outputs: tuple[OutputFigures, ...]) -> tuple[OutputFigures, ...]:
    if len(outputs) <= MAX_REMEMBERED_COLUMNS:
        return outputs
    least = worst(outputs)
    first = [o for o in outputs if o is not least][: MAX_REMEMBERED_COLUMNS - 1]
    return tuple(first) if least is None else (least, *first)
