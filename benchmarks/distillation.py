"""Accuracy against bootstraps: neurons removed, refitted, distilled, or trained from scratch at that size.

    python benchmarks/distillation.py examples --seeds 2 --ratios 0.5,0.75
    python benchmarks/distillation.py FOLDER --models mlp,cnn --seeds 5 --json OUT.json --plot OUT.png

A model is NAME.onnx with NAME.calibration.npz and NAME.validation.npz or NAME.test.npz (or both) beside it.
All that learn do it on the calibration inputs alone, without labels, from the network as imported; scored is
the integer model with the noise of encryption (mean of five draws) on validation and test together.
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
import onnx_ir as ir
from measuring import Files, find

import onnx_fhe
from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.analysis.noise.noise import NoisyModel
from onnx_fhe.ir.batch_runner import Arrays
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.errors import DataError, OnnxFheError
from onnx_fhe.ir.matching import calibration_for
from onnx_fhe.ir.p_error import DEFAULT_P_ERROR
from onnx_fhe.ir.paths import write_bytes
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes import Context, PassManager, Target
from onnx_fhe.passes.distill.distill import Distill
from onnx_fhe.passes.framework.presets import TO_TABLES
from onnx_fhe.scoring import accuracy

METHODS = {
    "removal": "neurons removed",
    "refit": "removed, refitted",
    "distill": "removed, refitted, distilled",
    "scratch": "trained from scratch",
    "scratch-distill": "trained from scratch, distilled",
}
"""What is compared, and its title. Those from scratch have the layers that ``refit`` leaves."""
RATIOS = "0.25,0.5,0.625,0.75"
BITS, DRAWS = 4, 5
"""Bits at each table, and draws of noise that accuracy is the mean of."""
QUANTIZE = "quantize{weights=4 activations=6 max-weight-norm=15}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    given = _parser().parse_args(arguments)
    ratios = [float(r) for r in given.ratios.split(",")]
    report: dict[str, Any] = {
        **machine.describe(),
        "command": shlex.join(["python", "benchmarks/distillation.py", *(arguments or sys.argv[1:])]),
        "steps": given.steps,
        "models": [],
    }
    try:
        methods = _methods(given.methods)
        for files in find(given.folder, given.models.split(",") if given.models else None):
            subject = Subject(files, given.steps, given.p_error)
            rows: list[dict[str, Any]] = []
            report["models"].append(subject.describe() | {"rows": rows})
            for ratio, seed, method in (
                (r, s, m) for r in ratios for s in range(given.seeds) for m in methods
            ):
                print(f"{files.name}: {ratio:.1%}, seed {seed}, {METHODS[method]} ...", file=sys.stderr)
                rows.append(subject.measure(method, ratio, seed))
                if given.json:  # after each row: a long run that is broken off leaves what it has
                    write_bytes(given.json, (json.dumps(report, indent=2) + "\n").encode())
    except OnnxFheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(to_markdown(report))
    if given.plot:
        plot(report, given.plot)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="distillation.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with models and their data")
    parser.add_argument("--models", metavar="A,B", help="only these; all by default")
    parser.add_argument("--methods", default=",".join(METHODS), help="what to compare (%(default)s)")
    parser.add_argument("--ratios", default=RATIOS, help="shares of neurons to remove (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="repetitions (%(default)s)")
    parser.add_argument(
        "--steps", type=int, default=Distill().steps, help="batches to train on (%(default)s)"
    )
    parser.add_argument(
        "--p-error", type=float, default=DEFAULT_P_ERROR, help="error of one lookup (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures here")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="draw accuracy here (.png, .svg)")
    return parser


def _methods(text: str) -> list[str]:
    unknown = [m for m in text.split(",") if m not in METHODS]
    if unknown:
        raise DataError("no such method", found=", ".join(unknown), allowed=", ".join(METHODS))
    return text.split(",")


class Subject:
    """A model with its data.

    Args:
        files: Where they are.
        steps: Batches to train on.
        p_error: Tolerated error of one lookup.

    Raises:
        DataError: What is to be scored on has no labels, or the model tells no classes apart.
    """

    def __init__(self, files: Files, steps: int, p_error: float) -> None:
        self.name, self.model, self.p_error = files.name, onnx_fhe.load(files.model), p_error
        self.options = Distill(rounding=BITS, steps=steps)
        # Without labels, so that nothing can look at them.
        self.calibration: Arrays = calibration_for(self.model, read_npz(files.calibration))
        parts = [read_npz(f) for f in files.scored.values()]
        inputs = [calibration_for(self.model, p) for p in parts]
        self.data: Arrays = {k: np.concatenate([i[k] for i in inputs]) for k in self.calibration}
        known = [p.labels for p in parts if p.labels is not None]
        self.labels = np.concatenate(known) if len(known) == len(parts) else None
        right = accuracy(run(self.model, self.data), self.labels, self.model)
        if right is None:
            raise DataError(
                "accuracy needs a classifier and labels",
                file=str(files.model),
                do="add `labels` to the scored data, or leave the model out with --models",
            )
        self.float_accuracy = right

    def describe(self) -> dict[str, Any]:
        """What is the same for all rows."""
        samples = len(next(iter(self.data.values())))
        return {"model": self.name, "samples": samples, "float_accuracy": self.float_accuracy}

    def measure(self, method: str, ratio: float, seed: int) -> dict[str, Any]:
        """One row: accuracy, bootstraps and complexity of a method."""
        began = time.perf_counter()
        result = self._made(method, ratio, seed)
        seconds = time.perf_counter() - began
        noisy, cost = NoisyModel(result, self.p_error), estimate(result, self.p_error)
        drawn = [accuracy(noisy.run(self.data, DRAWS * seed + i), self.labels, result) for i in range(DRAWS)]
        return {
            "method": method,
            "ratio": ratio,
            "seed": seed,
            "accuracy": float(np.mean([d for d in drawn if d is not None])),
            "bootstraps": cost.bootstraps,
            "complexity": cost.complexity,
            "seconds": round(seconds, 2),
        }

    def _made(self, method: str, ratio: float, seed: int) -> ir.Model:
        """The integer model of a method, tables fused and rounded."""
        refit = "refit=false" if method == "removal" else "refit=true"
        small = self._run(self.model, f"normalize,remove-neurons{{ratio={ratio} {refit}}}", seed)
        if method.startswith("scratch"):
            from from_scratch import train_from_scratch

            train_from_scratch(self.options, small, self.model, self.calibration, seed)
        # What quantize adapts to is the network that it is given, whatever the teacher of distill.
        learn = [self.options.to_text()] if method.endswith("distill") else []
        tail = [QUANTIZE, *learn, TO_TABLES, f"insert-rounding{{bits={BITS}}}", "remove-constant-tables"]
        return self._run(small, ",".join(tail), seed)

    def _run(self, model: ir.Model, pipeline: str, seed: int) -> ir.Model:
        context = Context(
            calibration=self.calibration,
            target=Target(p_error=self.p_error),
            seed=seed,
            source=self.model.clone(),
        )
        return PassManager.parse(pipeline).run(model, context).model


def to_markdown(report: dict[str, Any]) -> str:
    """The report as tables: accuracy in percent, mean and standard deviation over seeds, and bootstraps."""
    parts = [f"`{report['command']}`, {report['date'][:10]}, {report['steps']} steps"]
    for model in report["models"]:
        ratios = sorted({r["ratio"] for r in model["rows"]})
        lines = [
            f"{model['model']}: float {100 * model['float_accuracy']:.1f} % of {model['samples']} samples;"
            " accuracy in percent ± deviation over seeds (bootstraps)",
            "",
            "| | " + " | ".join(f"{r:.1%} removed" for r in ratios) + " | seconds |",
            "| --- " * (2 + len(ratios)) + "|",
        ]
        for method, points in _series(model).items():
            cells = {
                p["ratio"]: f"{p['mean']:.1f} ± {p['deviation']:.1f} ({p['bootstraps']:.0f})" for p in points
            }
            seconds = np.mean([p["seconds"] for p in points])
            row = [METHODS[method], *(cells.get(r, "-") for r in ratios), f"{seconds:.0f}"]
            lines.append(f"| {' | '.join(row)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw accuracy against bootstraps: one panel a model, bars from the worst seed to the best."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = report["models"]
    figure, axes = pyplot.subplots(1, len(models), figsize=(5 * len(models), 4), squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        axis.axhline(100 * model["float_accuracy"], color="grey", linewidth=0.8, label="float model")
        for method, points in _series(model).items():
            means = [p["mean"] for p in points]
            reach = [[p["mean"] - p["worst"] for p in points], [p["best"] - p["mean"] for p in points]]
            axis.errorbar(
                [p["bootstraps"] for p in points],
                means,
                yerr=reach,
                fmt="o-",
                color=f"C{list(METHODS).index(method)}",
                markersize=3,
                capsize=2,
                label=METHODS[method],
            )
        axis.set(title=model["model"], xlabel="bootstraps of one sample")
    axes[0][0].set_ylabel("accuracy with the noise of encryption, %")
    axes[0][-1].legend(fontsize="x-small", loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _series(model: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Figures over seeds (accuracy in percent) by method, in order of the ratio."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in model["rows"]:
        groups.setdefault((row["method"], row["ratio"]), []).append(row)
    found: dict[str, list[dict[str, float]]] = {}
    for method, ratio in sorted(groups, key=lambda g: (list(METHODS).index(g[0]), g[1])):
        rows = groups[method, ratio]
        right = [100 * r["accuracy"] for r in rows]
        point = {"mean": float(np.mean(right)), "deviation": float(np.std(right))}
        point |= {"worst": min(right), "best": max(right), "ratio": ratio}
        point |= {k: float(np.mean([r[k] for r in rows])) for k in ("bootstraps", "seconds")}
        found.setdefault(method, []).append(point)
    return found


if __name__ == "__main__":
    sys.exit(main())
