"""Everything that ``bench.py`` measures of one model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from machine import peak_memory_mb

import onnx_fhe
from onnx_fhe.analysis.regions.server import server_nodes
from onnx_fhe.ir.batch_runner import Arrays
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.errors import DataError
from onnx_fhe.ir.graph import constant_of, is_dialect
from onnx_fhe.ir.level import Level
from onnx_fhe.ir.matching import calibration_for
from onnx_fhe.ir.p_error import DEFAULT_P_ERROR
from onnx_fhe.ir.range_options import AUTO, DEFAULT_MARGIN, RANGE_MODES, Margin
from onnx_fhe.ir.runtime import Session
from onnx_fhe.passes import Context, PassManager
from onnx_fhe.passes.framework.base import Pass
from onnx_fhe.passes.framework.pipeline import parse_passes
from onnx_fhe.scoring import accuracy, agreement

Progress = Callable[[str, int, int], None]
PARTS = ("validation", "test")


def margin(text: str) -> Margin:
    """``--range-margin`` of a benchmark."""
    return AUTO if text == AUTO else float(text)


@dataclass(frozen=True)
class Settings:
    """What is asked for; the same for all models.

    Attributes:
        pipeline: A preset or a pipeline text.
        modes: Range modes to compile in.
        p_error: Tolerated error of one lookup.
        range_margin: As for ``compile``.
        seed: Seeds every random choice of passes.
        limit: Score so many samples only.
        encrypted: So many samples of the last part (test, where there is one) are run encrypted.
    """

    pipeline: str
    modes: tuple[str, ...] = RANGE_MODES
    p_error: float = DEFAULT_P_ERROR
    range_margin: Margin = DEFAULT_MARGIN
    seed: int = 0
    limit: int | None = None
    encrypted: int = 0


@dataclass(frozen=True)
class Files:
    """A model and its data.

    Attributes:
        calibration: Inputs that scales and ranges are chosen on; its labels, if any, are never read.
        scored: Inputs and labels by part (validation, test).
    """

    name: str
    model: Path
    calibration: Path
    scored: dict[str, Path]


def find(folder: Path, names: list[str] | None) -> list[Files]:
    """The models of a folder that have calibration data and something to score on.

    Raises:
        DataError: There is none, or a named one is missing or lacks data.
    """
    found = {}
    for model in sorted(folder.glob("*.onnx")):
        calibration = model.with_suffix(".calibration.npz")
        scored = {p: f for p in PARTS if (f := model.with_suffix(f".{p}.npz")).is_file()}
        if calibration.is_file() and scored:
            found[model.stem] = Files(model.stem, model, calibration, scored)
    missing = [n for n in names or [] if n not in found]
    if missing or not found:
        raise DataError(
            "no such model with data" if missing else "the folder holds no model with data",
            file=str(folder),
            found=", ".join(missing),
            allowed=", ".join(found)
            or "NAME.onnx, NAME.calibration.npz, and NAME.validation.npz or NAME.test.npz",
        )
    return [found[n] for n in names] if names else list(found.values())


def measure(files: Files, settings: Settings, progress: Progress) -> dict[str, Any]:
    """All figures of one model, as they go into the JSON file."""
    model = onnx_fhe.load(files.model)
    # Without labels, so that nothing can look at them.
    calibration = calibration_for(model, read_npz(files.calibration))
    parts = {p: read_npz(f) for p, f in files.scored.items()}
    inputs = {p: calibration_for(model, d) for p, d in parts.items()}
    data = {k: np.concatenate([i[k] for i in inputs.values()])[: settings.limit] for k in calibration}
    known = [d.labels for d in parts.values()]
    labels = None if any(x is None for x in known) else np.concatenate(known)[: settings.limit]  # type: ignore[arg-type]
    wanted = Session(model).run_batched(data)
    result: dict[str, Any] = {
        "model": files.name,
        "samples": {"calibration": _count(calibration), **{p: _count(i) for p, i in inputs.items()}},
        "scored_samples": _count(data),
        "scored_samples_in_calibration": _shared(calibration, data),
        "float_accuracy": accuracy(wanted, labels, model),
        "quantized": compare_levels(model, calibration, data, settings, progress),
        "modes": {},
    }
    for mode in settings.modes:
        # Only the first mode is run encrypted: it is what users get without asking for more.
        last = list(inputs.values())[-1] if mode == settings.modes[0] else None
        result["modes"][mode] = _mode(model, calibration, data, labels, last, mode, settings, progress)
    result["peak_memory_mb"] = round(peak_memory_mb())
    return result


def _mode(
    model: ir.Model,
    calibration: Arrays,
    data: Arrays,
    labels: np.ndarray | None,
    encrypted: Arrays | None,
    mode: str,
    settings: Settings,
    progress: Progress,
) -> dict[str, Any]:
    """Compile in one range mode, and run."""
    began = time.perf_counter()
    program = onnx_fhe.compile(
        model,
        calibration,
        settings.pipeline,
        p_error=settings.p_error,
        range_mode=mode,  # type: ignore[arg-type]
        range_margin=settings.range_margin,
        seed=settings.seed,
        accept_loss=True,
        progress=progress,
    )
    seconds = time.perf_counter() - began
    clear, simulated = program.run(data, progress=progress), program.simulate(data, progress=progress)
    costs = program.statistics
    return {
        "clear_accuracy": accuracy(clear.outputs, labels, program.integer_model),
        "simulated_accuracy": accuracy(simulated.outputs, labels, program.integer_model),
        "agreement": agreement(simulated.outputs, clear.outputs, program.integer_model),
        "programmable_bootstraps": costs.programmable_bootstraps,
        "complexity": costs.complexity,
        "max_table_bits": costs.max_table_bits,
        "max_accumulator_bits": costs.max_accumulator_bits,
        "mean_accumulator_bits": costs.mean_accumulator_bits,
        "overflow_values": clear.overflows.values,
        "overflow_samples": clear.overflows.samples,
        "clipped_values": clear.clip.values,
        "compile_seconds": round(seconds, 2),
        "compile_stages": {k: round(v, 3) for k, v in program.seconds.items()},
        "simulate_seconds_per_sample": simulated.seconds["simulate"] / simulated.samples,
        "pipeline": program.manifest.pipeline,
        "notes": list(program.notes),
        "encrypted": _encrypted(program, encrypted, settings.encrypted, progress) if encrypted else None,
    }


def _encrypted(
    program: onnx_fhe.Program, data: Arrays, samples: int, progress: Progress
) -> dict[str, Any] | None:
    if not samples:
        return None
    ran = program.encrypted(data, limit=samples, progress=progress)
    each = {k: ran.seconds[k] / ran.samples for k in ("encrypt", "evaluate", "decrypt")}
    return {
        "samples": ran.samples,
        "agreement": agreement(ran.outputs, ran.expected, program.integer_model),
        "keygen_seconds": ran.seconds["keygen"],
        **{f"{k}_seconds_per_sample": v for k, v in each.items()},
        "evaluation_key_mb": program.statistics.evaluation_key_bytes / 1e6,
    }


def compare_levels(
    model: ir.Model, calibration: Arrays, data: Arrays, settings: Settings, progress: Progress
) -> dict[str, Any] | None:
    """The integer level (every table, no rounding) against the quantized float model that it was made of.

    Compared are the integers that every quantizer of the encrypted part gives: a step is 1. None where the
    pipeline has no pass that quantizes.
    """
    passes = parse_passes(settings.pipeline)
    makes = [i for i, p in enumerate(passes) if isinstance(p, Pass) and p.produces is Level.QDQ]
    if not makes:
        return None
    context = Context(calibration=calibration, seed=settings.seed, progress=progress)
    begin = (
        []
        if any(isinstance(p, Pass) and p.name == "normalize" for p in passes)
        else parse_passes("normalize")
    )
    qdq = PassManager([*begin, *passes[: makes[-1] + 1]]).run(model, context).model
    integer = PassManager.parse("lower-to-integer,fuse-tlu").run(qdq, context).model
    codes = _codes(qdq)
    tables = [str(n.outputs[0].name) for n in integer.graph if is_dialect(n, "TableLookup")]
    if len(codes) != len(tables):
        return None
    expected = Session(qdq, [name for name, _ in codes]).run_batched(data)
    found = Session(integer, tables).run_batched(data)
    differences = [
        np.abs(
            expected[name].astype(np.int64).ravel() - zero - np.rint(found[table]).astype(np.int64).ravel()
        )
        for (name, zero), table in zip(codes, tables, strict=True)
    ]
    values = np.concatenate(differences)
    before, after = Session(qdq).run_batched(data), Session(integer).run_batched(data)
    return {
        "values": values.size,
        "differ": int((values > 0).sum()),
        "differ_by_more_than_a_step": int((values > 1).sum()),
        "agreement": agreement(after, before, model),
    }


def _codes(qdq: ir.Model) -> list[tuple[str, int]]:
    """The integers of each quantizer of the encrypted part, with their zero point, in order."""
    found = []
    for node in server_nodes(qdq):
        if node.op_type != "QuantizeLinear":
            continue
        value = node.outputs[0]
        readers = list(value.consumers())
        if len(readers) == 1 and readers[0].op_type == "Clip":
            value = readers[0].outputs[0]
        zero = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        found.append((str(value.name), 0 if zero is None else int(zero.reshape(-1)[0])))
    return found


def _count(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))


def _shared(calibration: Arrays, data: Arrays) -> int:
    """Samples to score on that are among the calibration samples too: they should not be."""
    known = set(_rows(calibration))
    return sum(row in known for row in _rows(data))


def _rows(arrays: Arrays) -> list[bytes]:
    columns = [np.ascontiguousarray(arrays[k]) for k in sorted(arrays)]
    return [b"".join(c[i].tobytes() for c in columns) for i in range(_count(arrays))]
