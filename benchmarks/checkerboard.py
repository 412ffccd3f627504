"""The field's own table: small networks on a 2-D checkerboard, float and at 3 bits, pruned and not.

    python benchmarks/checkerboard.py
    python benchmarks/checkerboard.py --seeds 2 --neurons 10,100 --pruned 10 --json OUT.json --plot OUT.png
    python benchmarks/checkerboard.py --trained

Trains 2-N-N-2 networks (ReLU) with torch, as they are and with a fixed mask that leaves each neuron of the
two wide layers K weights, and compiles them without rounding at 3-bit weights and activations and 5-bit
inputs: training knows nothing of quantization. Calibration sees the training inputs without labels. Beside it
stand the rows that Concrete ML's documentation publishes for the same data and widths.

With ``--trained`` only the last network is made, without its mask, and ``distill`` trains it with the labels:
at 3 bits, pruned to so many weights a neuron, to accumulators that provably fit 8 bits.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import checker_networks as networks
import machine
import numpy as np

import onnx_fhe
from onnx_fhe.ir.errors import OnnxFheError
from onnx_fhe.ir.paths import write_bytes
from onnx_fhe.ir.runtime import run

QUANTIZE = "quantize{weights=3 activations=3 inputs=5}"
LIMITED = "quantize{weights=3 activations=3 inputs=5 accumulator-bits=8}"
LOWER = "lower-to-integer,fuse-tlu"
PIPELINES = {
    "3 bits": f"normalize,{QUANTIZE},{LOWER}",
    "3 bits, 8-bit accumulators": f"normalize,{LIMITED},{LOWER}",
    "3 bits, 8-bit accumulators, refined tables": f"normalize,{LIMITED},{LOWER},refine-tables",
}
"""What is compared. The last two have sound ranges: no input can make an accumulator leave its 8 bits."""

TRAINED = "3 bits, 8-bit accumulators, trained"
"""The pipeline of ``--trained``."""

PUBLISHED_TRAINED = {(100, 30): (None, 95.4, 7.0)}
"""Brevitas with quantization-aware training, one run: accuracy at 3 bits, accumulator bits (95.6 at 8)."""

PUBLISHED = {
    (10, None): (68.7, 56.4, 6.6),
    (30, None): (83.3, 55.5, 6.9),
    (100, None): (88.1, 56.5, 7.4),
    (100, 10): (82.5, 57.7, 6.6),
    (100, 30): (88.1, 57.8, 6.8),
}
"""Concrete ML's documentation, means of 10: float accuracy, 3-bit accuracy, accumulator bits."""

MARGIN = 0.05
"""Share of observed ranges added on each side: calibration sees 9,500 points, so little is unseen."""


def trained(kept: int, steps: int) -> str:
    """The pipeline that prunes to ``kept`` weights a neuron while it trains ``steps`` batches with labels."""
    learn = (
        f"distill{{rounding=0 labels=true steps={steps} batch=500 learning-rate=0.02 scale-rate=0.1 augment=1"
        f" validation-share=0 nonzeros={kept} accumulator-bits=8 accumulator-penalty=0.1}}"
    )
    return f"normalize,{QUANTIZE},{learn},{LOWER}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    given = _parser().parse_args(arguments)
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {
        **machine.describe(),
        "command": shlex.join(["python", "benchmarks/checkerboard.py", *(arguments or sys.argv[1:])]),
        "pipelines": _pipelines(given, None),
        "range_margin": MARGIN,
        "epochs": given.epochs,
        "rows": rows,
    }
    try:
        for neurons, kept in _networks(given):
            rows.append(_row(neurons, kept, given))
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
    parser = argparse.ArgumentParser(prog="checkerboard.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="networks of each kind (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="networks made at a time (%(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="of training (%(default)s)")
    parser.add_argument("--neurons", default="10,30,100", help="widths of unpruned networks (%(default)s)")
    parser.add_argument(
        "--pruned", default="10,30", help="non-zero weights of each neuron of pruned ones (%(default)s)"
    )
    parser.add_argument("--pruned-neurons", type=int, default=100, help="their width (%(default)s)")
    parser.add_argument(
        "--trained", action="store_true", help="only the last pruned network, trained with labels by distill"
    )
    parser.add_argument("--steps", type=int, default=3000, help="batches of distill (%(default)s)")
    parser.add_argument(
        "--backend",
        default="concrete",
        help="makes the circuits whose width is measured; reference is faster and knows declared ranges only",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures here")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="draw the table here (.png, .svg)")
    return parser


def _networks(given: argparse.Namespace) -> list[tuple[int, int | None]]:
    """(neurons, non-zero weights of each) for every row."""
    plain: list[tuple[int, int | None]] = [(int(n), None) for n in given.neurons.split(",") if n]
    pruned: list[tuple[int, int | None]] = [
        (given.pruned_neurons, int(k)) for k in given.pruned.split(",") if k
    ]
    return pruned[-1:] if given.trained else plain + pruned


def _pipelines(given: argparse.Namespace, kept: int | None) -> dict[str, str]:
    """By name, for networks of one kind; the last one's circuits are made by the backend."""
    if not given.trained:
        return PIPELINES
    kept = _networks(given)[-1][1] if kept is None else kept
    return {TRAINED: trained(kept or 1, given.steps)}


def _row(neurons: int, kept: int | None, given: argparse.Namespace) -> dict[str, Any]:
    """All figures of one kind of network, as they go into the JSON file."""
    runs: list[dict[str, Any]] = []
    for run_ in _runs(neurons, kept, given):
        runs.append(run_)
        last = list(run_["pipelines"].values())[-1]
        found = f"{100 * last['accuracy']:.1f} %, {last['bits']} bits"
        line = f"{label(neurons, kept)}, seed {run_['seed']}: {found}, {run_['seconds']:.1f} s"
        print(line, file=sys.stderr, flush=True)
    names = list(runs[0]["pipelines"])
    return {
        "neurons": neurons,
        "non_zero": kept,
        "float_accuracy": float(np.mean([r["float_accuracy"] for r in runs])),
        "pipelines": {
            name: {
                "accuracy": float(np.mean([r["pipelines"][name]["accuracy"] for r in runs])),
                "bits": float(np.mean([r["pipelines"][name]["bits"] for r in runs])),
            }
            for name in names
        },
        "seeds": runs,
    }


def _runs(neurons: int, kept: int | None, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What ``_one`` finds for each seed, in order."""
    seeds = range(given.seeds)
    if given.jobs == 1:
        yield from (_one(neurons, kept, seed, given) for seed in seeds)
        return
    # Spawned: a forked child with inherited onnxruntime sessions hangs.
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(_one, neurons, kept, given=given), seeds)


def _one(neurons: int, kept: int | None, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Train one network and compile it by every pipeline."""
    started = time.perf_counter()
    train, test = networks.board(seed)
    found: dict[str, Any] = {"seed": seed, "pipelines": {}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checker.onnx"
        mask = None if given.trained else kept
        networks.export(networks.train(train, neurons, mask, seed, given.epochs), path)
        model = onnx_fhe.load(path)
        found["float_accuracy"] = _accuracy(run(model, {"input": test.inputs}), test)
        data = {"input": train.inputs}
        if given.trained:
            data["labels"] = train.labels
        pipelines = _pipelines(given, kept)
        for name, pipeline in pipelines.items():
            began, last = time.perf_counter(), name == list(pipelines)[-1]
            # Circuits take seconds; the other pipelines' widths are those that their models declare.
            program = onnx_fhe.compile(
                path,
                data,
                pipeline,
                given.backend if last else "reference",
                range_mode="sound" if "8-bit" in name else "observed",
                range_margin=MARGIN,
                seed=seed,
                check_samples=20,
                accept_loss=True,
            )
            result = program.run({"input": test.inputs})
            found["pipelines"][name] = {
                "accuracy": _accuracy(result.outputs, test),
                "bits": program.statistics.max_accumulator_bits,
                "layers": [layer.accumulator_bits for layer in program.statistics.layers],
                "overflows": result.overflows.values,
                "seconds": round(time.perf_counter() - began, 1),
                "programmable_bootstraps": program.statistics.programmable_bootstraps,
            }
    found["seconds"] = round(time.perf_counter() - started, 1)
    return found


def _accuracy(outputs: Any, data: networks.Points) -> float:
    return float((outputs["logits"].argmax(axis=1) == data.labels).mean())


def label(neurons: int, kept: int | None) -> str:
    """What a row is called."""
    return f"{neurons} neurons" + (f", {kept} non-zero" if kept else "")


def to_markdown(report: dict[str, Any]) -> str:
    """The report as a table: one column a network, as the field prints it."""
    rows = report["rows"]
    lines = [
        f"`{report['command']}`, {report['date'][:10]}; mean of {len(rows[0]['seeds'])} networks",
        "",
        "| | " + " | ".join(label(r["neurons"], r["non_zero"]) for r in rows) + " |",
        "| --- " * (1 + len(rows)) + "|",
        "| float accuracy, % | " + " | ".join(f"{100 * r['float_accuracy']:.1f}" for r in rows) + " |",
    ]
    for name in report["pipelines"]:
        cells = [r["pipelines"][name] for r in rows]
        lines.append(
            f"| {name}: accuracy | " + " | ".join(f"{100 * c['accuracy']:.1f}" for c in cells) + " |"
        )
        lines.append(f"| {name}: accumulator bits | " + " | ".join(f"{c['bits']:.1f}" for c in cells) + " |")
    for place, what in enumerate(("float accuracy", "3-bit accuracy", "accumulator bits")):
        known = [_published(report, r) for r in rows]
        if all(k is None or k[place] is None for k in known):
            continue
        lines.append(f"| published: {what} | " + " | ".join(f"{k[place]}" if k else "" for k in known) + " |")
    return "\n".join(lines)


def _published(report: dict[str, Any], row: dict[str, Any]) -> tuple[float | None, float, float] | None:
    known = PUBLISHED_TRAINED if TRAINED in report["pipelines"] else PUBLISHED
    return known.get((row["neurons"], row["non_zero"]))  # type: ignore[attr-defined, no-any-return]


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw accuracy by network: bars for each row of the table, with accumulator bits on top."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, names = report["rows"], list(report["pipelines"])
    nothing = (np.nan, np.nan, np.nan)
    published = [[np.nan if k is None else k for k in _published(report, r) or nothing] for r in rows]
    bars = [("float", [100 * r["float_accuracy"] for r in rows], None)]
    for name in names:
        cells = [r["pipelines"][name] for r in rows]
        bars.append((name, [100 * c["accuracy"] for c in cells], [c["bits"] for c in cells]))
    bars.append(("published float", [p[0] for p in published], None))
    bars.append(("published 3 bits", [p[1] for p in published], [p[2] for p in published]))
    figure, axis = pyplot.subplots(figsize=(2.6 * len(rows) + 1, 4.5))
    width = 0.85 / len(bars)
    for index, (name, values, bits) in enumerate(bars):
        places = np.arange(len(rows)) + (index - (len(bars) - 1) / 2) * width
        color = "0.45" if name == "float" else "0.75" if name == "published float" else f"C{index}"
        axis.bar(places, np.nan_to_num(values), width, label=name, color=color)
        for place, value, text in zip(places, values, bits or [], strict=False):
            if np.isfinite(value):
                axis.annotate(f"{text:.1f}", (place, value), ha="center", va="bottom", fontsize=6)
    axis.axhline(50, color="grey", linewidth=0.8, linestyle=":")
    axis.set_xticks(range(len(rows)), [label(r["neurons"], r["non_zero"]) for r in rows], fontsize="small")
    axis.set(ylabel="accuracy, %", ylim=(40, 110), title="Checkerboard; over the bars: accumulator bits")
    axis.legend(fontsize="x-small", loc="upper left", ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
