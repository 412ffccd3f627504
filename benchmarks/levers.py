"""What single passes and options give: accuracy and estimated cost of pipelines that differ in one thing.

    python benchmarks/levers.py examples
    python benchmarks/levers.py FOLDER --models mlp,cnn --json OUT.json

Accuracy is that of the integer model with the noise of encryption injected (mean of five draws), cost that of
the cost model: nothing is compiled, so that the whole table takes a minute or two. README.md says what models
are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Files, find

import onnx_fhe
from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.analysis.noise.noise import NoisyModel
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.matching import calibration_for
from onnx_fhe.ir.p_error import DEFAULT_P_ERROR
from onnx_fhe.passes import Context, PassManager, Target

DOWN = "lower-to-integer,fuse-tlu"
TABLES = "share-subexpressions,move-tables,merge-tables,remove-identity-tables,deduplicate-lookups"
ROUNDED = "insert-rounding{bits=4},remove-constant-tables"
PLAIN = "calibration=min-max method=nearest per-neuron=false refit=false adapt=0"
PIPELINES = {
    "4 bits, min-max, nearest": f"quantize{{weights=4 activations=4 inputs=4 {PLAIN}}},{DOWN}",
    "3 bits, min-max, nearest": f"quantize{{weights=3 activations=3 inputs=3 {PLAIN}}},{DOWN}",
    "3 bits, `quantize` as it is": f"quantize{{weights=3 activations=3 inputs=3}},{DOWN}",
    "3 bits, `refine-tables`": f"quantize{{weights=3 activations=3 inputs=3}},{DOWN},refine-tables",
    "2 bits, `quantize` as it is": f"quantize{{weights=2 activations=2 inputs=2}},{DOWN}",
    "2 bits, `per-neuron=false`": f"quantize{{weights=2 activations=2 inputs=2 per-neuron=false}},{DOWN}",
    "2 bits, `per-neuron=false equalize=true`": (
        f"quantize{{weights=2 activations=2 inputs=2 per-neuron=false equalize=true}},{DOWN}"
    ),
    "3 bits, `scales=power-of-two`": (
        f"quantize{{weights=3 activations=3 inputs=3 scales=power-of-two}},{DOWN}"
    ),
    "4-bit weights, `insert-rounding{bits=4}`": f"quantize{{weights=4}},{DOWN},{ROUNDED}",
    "and no bootstrap wasted": f"quantize{{weights=4}},{DOWN},{TABLES},{ROUNDED}",
    "and `remove-neurons{ratio=0.5}`": (
        f"remove-neurons{{ratio=0.5 balance=uniform}},quantize{{weights=4}},{DOWN},{TABLES},{ROUNDED}"
    ),
    "6-bit weights, rounded to 4 bits": f"quantize{{weights=6}},{DOWN},{ROUNDED}",
    "6-bit weights, `max-weight-norm=15`": f"quantize{{weights=6 max-weight-norm=15}},{DOWN},{ROUNDED}",
}
DRAWS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder with models and their data")
    parser.add_argument("--models", metavar="A,B", help="only these; all by default")
    parser.add_argument(
        "--p-error", type=float, default=DEFAULT_P_ERROR, help="error of one lookup (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures here")
    given = parser.parse_args(arguments)
    models = find(given.folder, given.models.split(",") if given.models else None)
    report = {files.name: measure(files, given.p_error, given.seed) for files in models}
    print(to_markdown(report))
    if given.json:
        given.json.write_text(json.dumps(report, indent=2))
    return 0


def measure(files: Files, p_error: float, seed: int) -> dict[str, dict[str, Any]]:
    """Accuracy and cost of each pipeline on one model."""
    model = onnx_fhe.load(files.model)
    calibration = calibration_for(model, read_npz(files.calibration))
    parts = [read_npz(f) for f in files.scored.values()]
    inputs = [calibration_for(model, p) for p in parts]
    data = {k: np.concatenate([i[k] for i in inputs]) for k in calibration}
    labels = np.concatenate([np.asarray(p.labels) for p in parts])
    found = {}
    for name, pipeline in PIPELINES.items():
        print(f"{files.name}: {name} ...", file=sys.stderr, flush=True)
        context = Context(calibration=calibration, target=Target(p_error=p_error), seed=seed)
        result = PassManager.parse(f"normalize,{pipeline}").run(model, context).model
        cost = estimate(result)
        noisy = NoisyModel(result, p_error)
        drawn = [next(iter(noisy.run(data, seed + i).values())) for i in range(DRAWS)]
        right = [float((d.argmax(axis=1) == labels).mean()) for d in drawn]
        found[name] = {
            "pipeline": f"normalize,{pipeline}",
            "accuracy": float(np.mean(right)),
            "bootstraps": cost.bootstraps,
            "complexity": cost.complexity,
            "table_bits": max(layer.table_bits for layer in cost.layers),
        }
    return found


def to_markdown(report: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The report as a table: a row for each pipeline, and for each model what it gives."""
    columns = "".join(f" {name}: accuracy | bootstraps | complexity |" for name in report)
    lines = [f"| |{columns}", "| --- |" + " --- |" * 3 * len(report)]
    for name in PIPELINES:
        cells = [found[name] for found in report.values()]
        parts = [
            f" {100 * c['accuracy']:.1f} % | {c['bootstraps']} | {c['complexity'] / 1e9:.1f} G |"
            for c in cells
        ]
        lines.append(f"| {name} |{''.join(parts)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
