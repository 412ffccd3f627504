"""Accuracy against the share of neurons and channels removed, by criterion, with and without refit.

    python benchmarks/structured_removal.py examples
    python benchmarks/structured_removal.py FOLDER --models mlp,cnn --json OUT.json --plot OUT.png

A model is NAME.onnx with NAME.calibration.npz and NAME.validation.npz or NAME.test.npz (or both) beside it.
Units are chosen and weights refitted on the calibration inputs alone, without labels; what is left is a float
model, and its accuracy on validation and test together is what the tables and the plot show.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from measuring import Files, find

import onnx_fhe
from onnx_fhe.analysis.outputs.divergence import output_error
from onnx_fhe.ir.batch_runner import Arrays
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.errors import DataError, OnnxFheError
from onnx_fhe.ir.matching import calibration_for
from onnx_fhe.ir.paths import write_bytes
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes import Context
from onnx_fhe.passes.compress.remove_neurons.remove_neurons import RemoveNeurons
from onnx_fhe.passes.normalize.normalize import Normalize
from onnx_fhe.scoring import accuracy

CRITERIA = ("output-error", "activation", "l1", "l2")
RATIOS = "0.125,0.25,0.375,0.5,0.625,0.75,0.875"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    given = _parser().parse_args(arguments)
    report: dict[str, Any] = {
        **machine.describe(),
        "command": shlex.join(["python", "benchmarks/structured_removal.py", *(arguments or sys.argv[1:])]),
        "models": [],
    }
    try:
        for files in find(given.folder, given.models.split(",") if given.models else None):
            report["models"].append(_measure(files, [float(r) for r in given.ratios.split(",")], given.seed))
    except OnnxFheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(to_markdown(report))
    if given.json:
        write_bytes(given.json, (json.dumps(report, indent=2) + "\n").encode())
    if given.plot:
        plot(report, given.plot)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="structured_removal.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="folder with models and their data")
    parser.add_argument("--models", metavar="A,B", help="only these; all by default")
    parser.add_argument("--ratios", default=RATIOS, help="shares to remove (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures here")
    parser.add_argument(
        "--plot", type=Path, metavar="OUT", help="draw accuracy against share here (.png, .svg)"
    )
    return parser


def _measure(files: Files, ratios: list[float], seed: int) -> dict[str, Any]:
    """All figures of one model, as they go into the JSON file."""
    model = onnx_fhe.load(files.model)
    # Without labels, so that nothing can look at them.
    calibration = calibration_for(model, read_npz(files.calibration))
    parts = [read_npz(f) for f in files.scored.values()]
    if any(p.labels is None for p in parts):
        raise DataError("accuracy needs labels", file=str(files.model), do="add `labels` to the scored data")
    labels = np.concatenate([p.labels for p in parts])  # type: ignore[misc]
    inputs = [calibration_for(model, p) for p in parts]
    data = {k: np.concatenate([i[k] for i in inputs]) for k in calibration}
    wanted = run(model, data)
    rows = []
    for criterion in CRITERIA:
        for refit in (True, False):
            for ratio in ratios:
                print(f"{files.name}: {criterion}, refit {refit}, {ratio:.1%} ...", file=sys.stderr)
                rows.append(_row(files, calibration, data, labels, wanted, criterion, refit, ratio, seed))
    return {
        "model": files.name,
        "samples": len(labels),
        "float_accuracy": accuracy(wanted, labels, model),
        "rows": rows,
    }


def _row(
    files: Files,
    calibration: Arrays,
    data: Arrays,
    labels: np.ndarray,
    wanted: Arrays,
    criterion: str,
    refit: bool,
    ratio: float,
    seed: int,
) -> dict[str, Any]:
    model = onnx_fhe.load(files.model)
    Normalize()(model)
    context = Context(calibration=calibration, seed=seed)
    began = time.perf_counter()
    RemoveNeurons(ratio=ratio, criterion=criterion, refit=refit, context=context)(model)  # type: ignore[arg-type]
    seconds = time.perf_counter() - began
    found = run(model, data)
    return {
        "criterion": criterion,
        "refit": refit,
        "ratio": ratio,
        "accuracy": accuracy(found, labels, model),
        "output_error": output_error(list(found.values()), list(wanted.values())),
        "seconds": round(seconds, 2),
        "removed": next((n for n in context.notes if "removed" in n), ""),
    }


def to_markdown(report: dict[str, Any]) -> str:
    """The report as tables: accuracy in percent, one row a criterion, one column a share."""
    parts = [f"`{report['command']}`, {report['date'][:10]}"]
    for model in report["models"]:
        ratios = sorted({r["ratio"] for r in model["rows"]})
        lines = [
            f"{model['model']}: float {100 * model['float_accuracy']:.1f} % of {model['samples']} samples",
            "",
            "| criterion | refit | " + " | ".join(f"{r:.1%}" for r in ratios) + " |",
            "| --- " * (2 + len(ratios)) + "|",
        ]
        for (criterion, refit), rows in _series(model).items():
            cells = [f"{100 * r['accuracy']:.1f}" for r in rows]
            lines.append(f"| {criterion} | {'yes' if refit else 'no'} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw accuracy against the share removed: one panel a model, dashed without refit."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = report["models"]
    figure, axes = pyplot.subplots(1, len(models), figsize=(5 * len(models), 4), squeeze=False, sharey=True)
    for axis, model in zip(axes[0], models, strict=True):
        axis.axhline(100 * model["float_accuracy"], color="grey", linewidth=0.8, label="float model")
        for (criterion, refit), rows in _series(model).items():
            axis.plot(
                [100 * r["ratio"] for r in rows],
                [100 * r["accuracy"] for r in rows],
                "o-" if refit else "o--",
                color=f"C{CRITERIA.index(criterion)}",
                markersize=3,
                label=f"{criterion}{'' if refit else ', no refit'}",
            )
        axis.set(title=model["model"], xlabel="neurons or channels removed, %", ylim=(0, 100))
    axes[0][0].set_ylabel("accuracy, %")
    axes[0][-1].legend(fontsize="x-small", loc="lower left")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _series(model: dict[str, Any]) -> dict[tuple[str, bool], list[dict[str, Any]]]:
    """Rows by criterion and refit, in order of the share."""
    found: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for row in sorted(model["rows"], key=lambda r: float(r["ratio"])):
        found.setdefault((row["criterion"], row["refit"]), []).append(row)
    order = {c: i for i, c in enumerate(CRITERIA)}
    return dict(sorted(found.items(), key=lambda item: (order[item[0][0]], not item[0][1])))


if __name__ == "__main__":
    sys.exit(main())
