"""From a trained model to a program: run the pipeline, make the circuit, measure it against the network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from .analysis.cost.advice import advice
from .backends.base import Circuit, LowerOptions
from .backends.registry import limits_of
from .backends.sides import Progress, quiet
from .batches import Circuits, batched, costs, numbers
from .circuits import find_backend
from .client_share import ClientComputes, ClientShare
from .comparing import compare
from .constants import settle_constants
from .fidelity.causes import Steps
from .fidelity.check import measured_fidelity, require_faithful
from .fidelity.ciphertexts import Wanted, tried
from .fidelity.figures import Fidelity, FidelityWarning
from .given import Given, read_given
from .input_coercion import DataLike, check_error, check_ranges, check_seed
from .ir.calibration import Calibration
from .ir.guard import FileLimits
from .ir.p_error import DEFAULT_P_ERROR, tolerated
from .ir.p_error import notes as p_error_notes
from .ir.range_options import DEFAULT_MARGIN, DEFAULT_RANGE_MODE, Margin, RangeMode, RangeOptions
from .ir.results import DEFAULT_RESULTS, SHARED_P_ERROR, Results, check_errors, check_results
from .machine.profile import Profile
from .manifest import Manifest, packages, ports, rounding_of
from .mending import Attempt, mended
from .overflow import expected_overflow
from .overflow import notes as overflow_notes
from .passes.framework.base import Context, Findings, Target
from .passes.framework.completion import require_integer
from .passes.framework.instruments import Instrument, Verify
from .passes.framework.manager import PassManager, PipelineResult
from .passes.framework.presets import DEFAULT
from .passes.framework.supported import Supported
from .program import Program
from .record import Measurements
from .report.measuring import measure
from .report.recording import Recorder
from .running import Stopwatch
from .sharing import lowered


def compile_model(
    model: ir.Model | str | os.PathLike[str],
    calibration: DataLike | None = None,
    pipeline: str | PassManager = DEFAULT,
    backend: str = "concrete",
    *,
    p_error: float | None = None,
    global_p_error: float | None = None,
    range_mode: RangeMode = DEFAULT_RANGE_MODE,
    range_margin: Margin = DEFAULT_MARGIN,
    results: Results = DEFAULT_RESULTS,
    security_level: int = 128,
    seed: int = 0,
    check_samples: int = 200,
    accept_loss: bool = False,
    self_test: Wanted = 0,
    progress: Progress = quiet,
    instruments: Sequence[Instrument] = (),
    limits: FileLimits | None = None,
    bind: Mapping[str, int] | None = None,
    machine: Profile | None = None,
    batch: int | Sequence[int] = (),
    client: ClientComputes = "inputs",
    client_until: str | Sequence[str] = (),
    client_from: str | Sequence[str] = (),
    imitate: bool = False,
) -> Program:
    """Compile a trained network to a circuit that computes on encrypted data.

    On calibration samples the circuit's own evaluation in the clear is compared with the integer model, and
    the circuit with the errors of encryption with the network as it was given. What was found of the second
    is ``program.manifest.fidelity``; what is wrong there, or with the data, is a ``FidelityWarning``.

    Args:
        model: An ONNX file, or what ``load`` returned; of any level.
        calibration: A few hundred typical inputs: arrays by input name, samples on axis 0; or a single array,
            an .npz file, what ``load_data`` returned.
        pipeline: Name of a preset, or passes as text or as a manager. ``normalize`` is put in front where a
            float model has none.
        backend: ``concrete``, ``reference`` or one of a plug-in.
        p_error: Tolerated error of one table lookup that ``set-p-error`` says nothing about; 1e-5 unless
            ``global_p_error`` is given.
        global_p_error: Tolerated error of the whole circuit.
        range_mode: Ranges of accumulators: ``observed`` on the calibration data, or ``sound``.
        range_margin: Share of an observed range that is added on each side; ``auto``: what the tails of the
            calibration data ask for.
        results: Who may see what is decrypted: the ``owner`` of the keys alone, or (``shared``) anybody: then
            errors are so rare that nobody meets one, and rounding is exact, which costs many times as much.
        security_level: Bits of security.
        seed: Seeds every random choice of passes; keys and encryption never use it.
        check_samples: Compare circuit and integer model on this many calibration samples (fewer where it
            takes long).
        accept_loss: Return a circuit also where it has nothing more to do with the network.
        self_test: Calibration samples that are encrypted, evaluated and compared with the integer model;
            ``auto`` for three where making keys and all takes up to 20 s by prediction.
        progress: Called with (what, done, total).
        instruments: Watch the passes.
        limits: How much the model file may hold.
        bind: Sizes of free axes of the inputs, by name; the calibration data binds the rest, but for axis 0.
        machine: Profile of the machine that will compute, for passes that aim at a latency.
        batch: Make circuits for so many samples a call too, one or several numbers: ``program.circuits``.
        client: What the client computes before it encrypts: what its ``inputs`` need alone, or public
            ``features`` of them, out of which the circuit reads the answers without a bootstrap
            (``lift-features``).
        client_until: Nodes of the network that the client computes before it encrypts, by name, with all that
            they need: it can read their weights.
        client_from: Nodes that the client computes after it decrypts, with all that needs them: it can read
            their weights, and the values that they are given.
        imitate: Compile a student that imitates the file, whatever its operators are: public features of its
            inputs and a readout (pass ``imitate``).

    Raises:
        UserError: Model, data, pipeline or another argument is at fault.
        FidelityError: The circuit computes something else than the network.
        LoweringMismatchError: Circuit and integer model disagree: a defect.
    """
    check_error("p_error", p_error)
    check_error("global_p_error", global_p_error)
    check_ranges(range_mode, range_margin)
    check_seed(seed)
    together = numbers(batch)
    check_results(results)
    check_errors(results, p_error)
    default = DEFAULT_P_ERROR if results == "owner" else SHARED_P_ERROR
    manager = pipeline if isinstance(pipeline, PassManager) else PassManager.parse(pipeline)
    imitate = imitate or ClientShare.of(manager.passes).imitated
    share = ClientShare.chosen(client, client_until, client_from, imitate)
    timed = Stopwatch()
    with timed("load"):
        given = read_given(model, calibration, limits, bind or {}, any_model=share.imitated)
        context = Context(
            calibration=None if given.arrays is None else Calibration(given.arrays, given.labels),
            target=Target(
                limits_of(backend),
                p_error if p_error is not None else default,
                None if machine is None else machine.timings,
                results,
            ),
            ranges=RangeOptions(range_mode, range_margin),
            seed=seed,
            progress=progress,
        )
    with timed("passes"):
        preset = pipeline if isinstance(pipeline, str) else None
        chosen = _run_passes(share.completed(manager, given.model), preset, given, context, instruments)
    result = chosen.result
    given_error = p_error if results == "owner" else p_error or default
    p_error, global_p_error = tolerated(result.model, given_error, global_p_error, default)
    options = LowerOptions(
        p_error=p_error,
        global_p_error=global_p_error,
        security_level=security_level,
        seed=seed,
        progress=progress,
    )
    with timed("circuit"):
        circuit, options, smaller = lowered(find_backend(backend), result.model, options, results)
    p_error = options.p_error
    statistics = circuit.statistics()
    overflow = expected_overflow(result.model, given.arrays)
    notes = [*result.context.notes, *smaller, *p_error_notes(result.model), *advice(result.model)]
    notes += overflow_notes(overflow)
    if given.arrays is not None and check_samples > 0:
        with timed("compare"):
            notes += compare(result.model, circuit, given.arrays, check_samples, progress)
    with timed("fidelity"):
        fidelity, lost = _fidelity(chosen, circuit, given, progress)
    require_faithful(fidelity, given.warnings, accepted=accept_loss)
    with timed("batches" if together else "circuit"):
        several = batched(circuit, together, progress)
    with timed("self-test"):
        test = tried(result.model, circuit, backend, given.arrays, self_test, p_error, progress, machine)
    with timed("record"):
        record = chosen.recorder.record(_measure(result, p_error, given), bind or {})
    for text in [*given.warnings, *(["; ".join(lost)] if lost else [])]:
        warnings.warn(text, FidelityWarning, stacklevel=2)
    manifest = Manifest(
        backend=backend,
        source=given.source,
        inputs=ports(list(given.model.graph.inputs)),
        outputs=ports(list(given.model.graph.outputs)),
        pipeline=chosen.manager.to_text(),
        p_error=p_error,
        global_p_error=global_p_error,
        security_level=options.security_level,
        rounding=rounding_of(result.model),
        range_mode=range_mode,
        range_margin=range_margin,
        seed=seed,
        statistics=statistics,
        notes=tuple(notes),
        warnings=(*given.warnings, *lost),
        fidelity=fidelity,
        expected_overflow=overflow,
        self_test=test,
        record=record,
        batches=costs(several),
        packages=packages(),
        results=results,
        client=ClientShare.of(chosen.manager.passes).sentence,
    )
    circuits = Circuits({n: _always(c) for n, c in {1: circuit, **several}.items()})
    return Program(result.model, manifest, circuits, seconds=timed.seconds)


def _run_passes(
    manager: PassManager,
    preset: str | None,
    given: Given,
    context: Context,
    instruments: Sequence[Instrument],
) -> Attempt:
    """Run the passes; where a ``preset`` makes a circuit that strays from the network, finer settings too."""
    attempts: list[Attempt] = []

    def attempt(manager: PassManager) -> Attempt:
        recorder, steps = Recorder(), Steps()
        watching = [Verify(given.arrays), recorder, steps, Supported(), *instruments]
        result = manager.run(given.model, replace(context, findings=Findings()), watching)
        require_integer(result.model, manager.passes)
        if given.arrays is not None:
            result.context.notes.extend(settle_constants(result.model, given.model, given.arrays))
        attempts.append(Attempt(manager, result, recorder, steps))
        return attempts[-1]

    chosen = attempt(manager)
    if preset is not None and given.arrays is not None:
        chosen = mended(
            preset, chosen, attempt, given.model, given.arrays, given.classes, context.target.p_error
        )
    if chosen is not attempts[-1] and instruments:
        # Who watches the passes ends with the circuit that is made.
        told, chosen = chosen.result.context.notes, attempt(chosen.manager)
        chosen.result.context.notes[:] = told
    return chosen


def _fidelity(
    chosen: Attempt, circuit: Circuit, given: Given, progress: Progress
) -> tuple[Fidelity | None, list[str]]:
    """What the circuit is found to compute of the network, and what is wrong there."""
    found = chosen.result.context.findings
    return measured_fidelity(
        given.model,
        chosen.result.model,
        circuit,
        given.arrays,
        labels=given.classes,
        kept=chosen.steps.kept,
        unfitted=found.unfitted[-1] if found.unfitted else None,
        expected=found.expected[-1] if found.expected else None,
        progress=progress,
    )


def _measure(result: PipelineResult, p_error: float | None, given: Given) -> Measurements | None:
    context = result.context
    if context.calibration is None:
        return None
    return measure(
        result.model,
        context.calibration,
        source=context.source,
        reduced=context.quantized_from,
        labels=given.classes,
        p_error=p_error if p_error is not None else context.target.p_error,
        file=given.file,
    )


def _always(circuit: Circuit) -> Callable[[], Circuit]:
    return lambda: circuit
