"""How often accumulators leave their declared range on samples that compilation never saw.

    python benchmarks/overflow.py examples
    python benchmarks/overflow.py FOLDER --presets fast,balanced --models mlp,cnn --json OUT.json

A model is NAME.onnx with NAME.calibration.npz and NAME.validation.npz, NAME.test.npz or NAME.train.npz beside
it. Samples are unseen where they are not among the calibration samples. Nothing is encrypted, and no circuit
is made: the integer model says what leaves its range, the cost model what the circuit would cost.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Files, find, margin

import onnx_fhe
from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.errors import OnnxFheError
from onnx_fhe.ir.matching import calibration_for
from onnx_fhe.ir.paths import write_bytes
from onnx_fhe.ir.range_options import DEFAULT_MARGIN
from onnx_fhe.ir.runtime import Session
from onnx_fhe.scoring import accuracy

MOST = 1000
"""Unseen samples that are counted on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table; 0 when every model went through."""
    given = _parser().parse_args(arguments)
    try:
        models = find(given.folder, given.models.split(",") if given.models else None)
    except OnnxFheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options: dict[str, Any] = {"range_margin": given.range_margin}
    if given.range_mode is not None:
        options["range_mode"] = given.range_mode
    found: list[dict[str, Any]] = []
    for files in models:
        for preset in given.presets.split(","):
            print(f"{files.name}, {preset} ...", file=sys.stderr)
            try:
                found.append(measure(files, preset, options))
            except OnnxFheError as error:
                found.append({"model": files.name, "preset": preset, "error": str(error)})
            if given.json:
                write_bytes(given.json, (json.dumps(found, indent=2) + "\n").encode())
    print(to_markdown(found))
    return int(any("error" in f for f in found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="overflow.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with models and their data")
    parser.add_argument("--models", metavar="A,B", help="only these; all by default")
    parser.add_argument("--presets", default="balanced,fast", help="presets, or one pipeline (%(default)s)")
    parser.add_argument("--range-margin", type=margin, default=DEFAULT_MARGIN, help="as for compile")
    parser.add_argument("--range-mode", help="as for compile")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures here")
    return parser


def measure(files: Files, pipeline: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Compile a model for the reference backend and count what leaves its range."""
    model = onnx_fhe.load(files.model)
    calibration = calibration_for(model, read_npz(files.calibration))
    data, labels = unseen(model, files, calibration)
    began = time.perf_counter()
    program = onnx_fhe.compile(model, calibration, pipeline, backend="reference", **options)
    seconds = time.perf_counter() - began
    ran = program.run(data)
    cost = estimate(program.integer_model)
    return {
        "model": files.name,
        "preset": pipeline,
        "calibration": len(next(iter(calibration.values()))),
        "samples": ran.samples,
        "overflow_samples": ran.overflows.samples,
        "overflow_values": ran.overflows.values,
        "expected_overflow": getattr(program.manifest, "expected_overflow", None),
        "by_node": {name: node.values for name, node in ran.overflows.by_node.items()},
        "range_mode": program.manifest.range_mode,
        "float_accuracy": accuracy(Session(model).run_batched(data), labels, model),
        "accuracy": accuracy(ran.outputs, labels, program.integer_model),
        "bootstraps": cost.bootstraps,
        "complexity": cost.complexity,
        "table_bits": [layer.table_bits for layer in cost.layers],
        "seconds": round(seconds, 1),
        "notes": list(program.notes),
    }


def unseen(
    model: Any, files: Files, calibration: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Up to ``MOST`` samples that are not among the calibration samples, with their labels."""
    paths = [*files.scored.values(), files.model.with_suffix(".train.npz")]
    parts = [read_npz(p) for p in paths if p.is_file()]
    arrays = [calibration_for(model, p) for p in parts]
    data = {k: np.concatenate([a[k] for a in arrays]) for k in calibration}
    known = {_row(calibration, i) for i in range(len(next(iter(calibration.values()))))}
    total = len(next(iter(data.values())))
    new = [i for i in range(total) if _row(data, i) not in known][:MOST]
    labels = [p.labels for p in parts]
    found = None if any(x is None for x in labels) else np.concatenate(labels)[new]  # type: ignore[arg-type]
    return {k: a[new] for k, a in data.items()}, found


def _row(arrays: Mapping[str, np.ndarray], index: int) -> bytes:
    return b"".join(np.ascontiguousarray(arrays[k][index]).tobytes() for k in sorted(arrays))


def to_markdown(found: list[dict[str, Any]]) -> str:
    """The figures as a table, and what failed below it."""
    header = (
        "model | preset | ranges | overflow: samples (values) | unseen samples | expected, in 1,000 | float"
        " | clear | bootstraps | complexity, G | table bits | compile, s"
    )
    names = header.split(" | ")
    rows = [names, ["---"] * len(names), *(_row_of(f) for f in found if "error" not in f)]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    failed = [f"{f['model']}, {f['preset']}: {f['error']}" for f in found if "error" in f]
    return "\n".join([*lines, *(["", *failed] if failed else [])])


def _row_of(found: Mapping[str, Any]) -> list[str]:
    expected = found["expected_overflow"]
    return [
        found["model"],
        found["preset"],
        found["range_mode"],
        f"{found['overflow_samples']} ({found['overflow_values']})",
        str(found["samples"]),
        "-" if expected is None else f"{1000 * expected:.2g}",
        *("-" if x is None else f"{x:.1%}" for x in (found["float_accuracy"], found["accuracy"])),
        str(found["bootstraps"]),
        f"{found['complexity'] / 1e9:.2f}",
        " ".join(map(str, found["table_bits"])),
        str(found["seconds"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
