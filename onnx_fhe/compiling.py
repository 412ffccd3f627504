"""From a trained model to a program: run the pipeline, make the circuit, compare the two."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from .backends.base import Circuit, LowerOptions, Progress, quiet
from .backends.checking import check_against
from .clipping import Prologue
from .given import DataLike, as_data, check_error, check_ranges, check_seed
from .ir.data import Data, calibration_for
from .ir.errors import PipelineError
from .ir.guard import FileLimits
from .ir.level import Level, level_of
from .ir.load import FILE_KEY, load
from .ir.partition import partition
from .ir.runtime import Arrays, to_proto
from .ir.tolerance import notes as tolerance_notes
from .ir.tolerance import tolerated
from .ir.verify import verify, verify_given
from .machine.profile import Profile
from .manifest import Manifest, Source, packages, ports, rounding_of
from .passes.analysis import islands
from .passes.analysis.advice import advice
from .passes.base import Context
from .passes.importing.detect import is_foreign
from .passes.instruments import Instrument, Verify
from .passes.manager import PassManager, PipelineResult
from .passes.pipeline import parse_passes, pass_name
from .passes.presets import DEFAULT
from .program import Program, find_backend
from .record import Measurements
from .report.measuring import measure
from .report.recording import Recorder
from .running import Stopwatch

P_ERROR = 1e-5
"""Tolerated error of one table lookup where none is given."""

COMPARE_SECONDS = 20.0
"""Comparing circuit and model stops after this long, at whatever sample it is."""

_TO_INTEGER = {
    Level.FLOAT: "quantize,lower-to-integer,fuse-tlu",
    Level.QDQ: "lower-to-integer,fuse-tlu",
}


def compile_model(
    model: ir.Model | str | os.PathLike[str],
    calibration: DataLike | None = None,
    pipeline: str | PassManager = DEFAULT,
    backend: str = "concrete",
    *,
    p_error: float | None = None,
    global_p_error: float | None = None,
    range_mode: Literal["observed", "sound"] = "observed",
    range_margin: float = 0.2,
    seed: int = 0,
    check_samples: int = 200,
    progress: Progress = quiet,
    instruments: Sequence[Instrument] = (),
    limits: FileLimits | None = None,
    bind: Mapping[str, int] | None = None,
    machine: Profile | None = None,
) -> Program:
    """Compile a trained network to a circuit that computes on encrypted data.

    The circuit's own evaluation in the clear is compared with the integer model on calibration samples.

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
        range_margin: Share of an observed range that is added on each side.
        seed: Seeds every random choice of passes; keys and encryption never use it.
        check_samples: Compare circuit and model on this many calibration samples (fewer where it takes long).
        progress: Called with (what, done, total).
        instruments: Watch the passes.
        limits: How much the model file may hold.
        bind: Sizes of free axes of the inputs, by name; the calibration data binds the rest, but for axis 0.
        machine: Profile of the machine that will compute, for passes that aim at a latency.

    Raises:
        UserError: Model, data, pipeline or another argument is at fault.
        LoweringMismatchError: Circuit and integer model disagree: a defect.
    """
    check_error("p_error", p_error)
    check_error("global_p_error", global_p_error)
    check_ranges(range_mode, range_margin)
    check_seed(seed)
    manager = pipeline if isinstance(pipeline, PassManager) else PassManager.parse(pipeline)
    timed = Stopwatch()
    with timed("load"):
        data = None if calibration is None else as_data(calibration)
        shapes = {} if data is None else {k: a.shape for k, a in data.arrays.items()}
        given = model if isinstance(model, ir.Model) else load(model, limits, bind=bind or {}, shapes=shapes)
        source = _source(model)
        arrays = None if data is None else calibration_for(given, data)
        manager = _complete(manager, given)
        target = find_backend(backend)
    context = Context(
        calibration=arrays,
        labels=None if data is None else data.labels,
        limits=target.limits(),
        seed=seed,
        range_mode=range_mode,
        range_margin=range_margin,
        p_error=p_error if p_error is not None else P_ERROR,
        timings=None if machine is None else machine.timings,
        progress=progress,
    )
    recorder = Recorder()
    with timed("passes"):
        result = manager.run(given, context, [Verify(arrays), recorder, *instruments])
        _require_integer(result.model, manager)
    p_error, global_p_error = tolerated(result.model, p_error, global_p_error, P_ERROR)
    options = LowerOptions(p_error=p_error, global_p_error=global_p_error, seed=seed, progress=progress)
    with timed("circuit"):
        circuit = target.lower(result.model, options)
    notes = [*result.context.notes, *tolerance_notes(result.model), *advice(result.model)]
    if arrays is not None and check_samples > 0:
        with timed("compare"):
            notes += _compare(result.model, circuit, arrays, check_samples, progress)
    with timed("record"):
        record = recorder.record(_measure(result, p_error, data), bind or {})
    manifest = Manifest(
        backend=backend,
        source=source,
        inputs=ports(list(given.graph.inputs)),
        outputs=ports(list(given.graph.outputs)),
        pipeline=manager.to_text(),
        p_error=p_error,
        global_p_error=global_p_error,
        security_level=options.security_level,
        rounding=rounding_of(result.model),
        range_mode=range_mode,
        range_margin=range_margin,
        seed=seed,
        statistics=circuit.statistics(),
        notes=tuple(notes),
        record=record,
        packages=packages(),
    )
    return Program(result.model, manifest, _always(circuit), seconds=timed.seconds)


def _measure(result: PipelineResult, p_error: float | None, data: Data | None) -> Measurements | None:
    context = result.context
    if context.calibration is None:
        return None
    return measure(
        result.model,
        context.calibration,
        source=context.source,
        reduced=context.quantized_from,
        labels=context.labels,
        p_error=p_error if p_error is not None else context.p_error,
        file="" if data is None else data.file,
    )


def _always(circuit: Circuit) -> Callable[[], Circuit]:
    return lambda: circuit


def _source(model: ir.Model | str | os.PathLike[str]) -> Source:
    if isinstance(model, ir.Model):
        name = model.metadata_props.get(FILE_KEY, "")
        content = to_proto(model).SerializeToString(deterministic=True)
        return Source(name, hashlib.sha256(content).hexdigest())
    content = Path(model).read_bytes()
    return Source(Path(model).name, hashlib.sha256(content).hexdigest())


def _complete(manager: PassManager, model: ir.Model) -> PassManager:
    """The pipeline with ``normalize`` and ``import-qat`` in front, where the model would go without."""
    names = [pass_name(p) for p in manager.passes]
    passes = list(manager.passes)
    if is_foreign(model) and "import-qat" not in names:
        place = names.index("normalize") + 1 if "normalize" in names else 0
        passes[place:place] = parse_passes("import-qat")
    if "normalize" not in names and (level_of(model) is Level.FLOAT or is_foreign(model)):
        passes = [*parse_passes("normalize"), *passes]
    return PassManager(passes, manager.instruments)


def _require_integer(model: ir.Model, manager: PassManager) -> None:
    """Refuse a pipeline that stops before there is a circuit to make, and a model that breaks a rule."""
    level, text = level_of(model), manager.to_text()
    if level is not Level.INTEGER:
        raise PipelineError(
            "the pipeline does not reach the integer level",
            found=f"{text}, which ends at the {level} level",
            allowed="a pipeline that ends at the integer level",
            do=f"add {_TO_INTEGER[level]} at its end, or use a preset (`onnx-fhe passes` lists them)",
        )
    names = [pass_name(p) for p in manager.passes]
    if left := islands.find(model):
        node = left[0].nodes[0]
        raise PipelineError(
            "the pipeline leaves operators in the encrypted part that are no tables yet",
            found=text,
            do="add fuse-tlu behind lower-to-integer",
            node=node.name or "",
            op=node.op_type,
        )
    # Where nobody here made it an integer model, the file came so.
    (verify if "lower-to-integer" in names else verify_given)(model)


def _compare(model: ir.Model, circuit: Circuit, data: Arrays, samples: int, progress: Progress) -> list[str]:
    """Compare circuit and model on up to ``samples`` samples, as many as there is time for; notes about it.

    Raises:
        LoweringMismatchError: They differ.
    """
    given = {k: v[:samples] for k, v in data.items()}
    values: dict[str, np.ndarray] = Prologue(partition(model)).run(given)[0]
    total = len(next(iter(values.values())))
    began, done, skipped, size = time.perf_counter(), 0, 0, 4
    while done < total and size:
        progress("compare circuit and model", done, total)
        found = check_against(model, circuit, {k: v[done : done + size] for k, v in values.items()})
        done, skipped = min(done + size, total), skipped + found.skipped
        spent = time.perf_counter() - began
        # As many more as there is time for, but with a look at the clock on the way.
        size = min(4 * size, int(done * max(COMPARE_SECONDS - spent, 0) / spent))
    progress("compare circuit and model", total, total)
    notes = []
    if done < total:
        notes.append(
            f"circuit and integer model were compared on {done} of {total} samples, for it takes long"
        )
    if skipped:
        notes.append(f"{skipped} of {done} calibration samples overflow in the integer model")
    return notes
