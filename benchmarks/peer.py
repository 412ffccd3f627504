"""Concrete ML and onnx-fhe side by side: the same files, the same machine, the same run.

    python benchmarks/peer.py FOLDER --models digits_mlp,mnist_mlp --ours tuned=tuned/ -o build/peer/peer

A model is NAME.onnx with NAME.calibration.npz, NAME.validation.npz (settings are chosen on it) and
NAME.test.npz (accuracy is told of it) beside it. README.md says what is compared, and how.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import machine
from measuring import find
from peers import comparison, plot, tables
from peers.circuits import check, parse
from peers.environment import WORKERS, prepare
from peers.process import WorkerError, WorkerProcess
from peers.sweep import Limits, labels_of

from onnx_fhe.ir.errors import OnnxFheError
from onnx_fhe.ir.paths import write_bytes

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 when every model went through."""
    given = _parser().parse_args(arguments)
    command = shlex.join(["python", "benchmarks/peer.py", *(arguments or sys.argv[1:])])
    try:
        models = find(given.folder, given.models.split(",") if given.models else None)
        for model in models:
            labels_of(model, "validation")
        given.output.parent.mkdir(parents=True, exist_ok=True)
        peer = given.peer_worker or [
            prepare(
                given.environment,
                given.peer_python,
                given.published_torch,
                shlex.split(given.pip_flags),
                _say,
            ),
            WORKERS / "concrete_ml.py",
        ]
        circuits = [parse(text) for text in given.ours or ("fast", "balanced")]
        check(circuits, [m.model for m in models])
        options = comparison.Options(
            peer=partial(WorkerProcess, peer),
            ours=partial(WorkerProcess, given.our_worker or [sys.executable, WORKERS / "ours.py"]),
            circuits=tuple(circuits),
            cache=given.output.with_suffix(".sweep.json"),
            limits=Limits(given.max_accuracy_drop, given.patience),
            roundings=tuple(given.rounding),
            cores=given.cores,
            nice=given.nice,
            samples=given.samples,
            from_cache=given.from_cache,
            encrypted=not given.sweep_only,
        )
        report: dict[str, Any] = {**machine.describe(), "command": command, "cores_used": given.cores}
        interpreters = {
            "peer": None if given.peer_worker else peer[0],
            "ours": None if given.our_worker else Path(sys.executable),
        }
        report |= comparison.sides(options, interpreters, _say)
        report |= {"max_accuracy_drop": given.max_accuracy_drop, "models": []}
        for files in models:
            report["models"].append(comparison.compare(files, options, report, _say))
            # After each model: a long run that is broken off leaves what it has.
            _write(report, given.output)
    except (OnnxFheError, WorkerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(tables.to_markdown(report))
    return 0


def _write(report: dict[str, Any], output: Path) -> None:
    write_bytes(output.with_suffix(".json"), (json.dumps(report, indent=1) + "\n").encode())
    write_bytes(output.with_suffix(".md"), (tables.to_markdown(report) + "\n").encode())
    plot.draw(report, output.with_suffix(".png"))


def _rounding(text: str) -> tuple[str | None, int]:
    name, _, bits = text.rpartition("=")
    return name or None, int(bits)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="peer.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with models and their data")
    parser.add_argument("--models", metavar="A,B", help="only these; all by default")
    parser.add_argument(
        "--ours",
        action="append",
        metavar="NAME=CIRCUIT",
        help="a circuit of ours: a preset, a pipeline, FILE.fhe, or a folder with MODEL.fhe for each model;"
        " may be repeated (fast and balanced by default)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=ROOT / "build" / "peer" / "peer",
        metavar="STEM",
        help="writes STEM.json, STEM.md, STEM.png, and STEM.sweep.json, where a sweep goes on (%(default)s)",
    )
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--sweep-only", action="store_true", help="find the peer's best settings, no more")
    step.add_argument("--from-cache", action="store_true", help="refuse to sweep: compare what is known")
    parser.add_argument("--samples", type=int, default=7, help="ciphertexts of each circuit (%(default)s)")
    parser.add_argument("--cores", type=int, default=1, help="for one sample, on either side (%(default)s)")
    parser.add_argument(
        "--max-accuracy-drop",
        type=float,
        default=0.01,
        help="what the peer's best may lose on the validation samples (%(default)s)",
    )
    parser.add_argument(
        "--rounding",
        type=_rounding,
        action="append",
        default=[],
        metavar="[MODEL=]BITS",
        help="also its best setting with this rounding",
    )
    parser.add_argument(
        "--patience", type=float, default=300, help="seconds that one circuit may take (%(default)s)"
    )
    parser.add_argument("--nice", type=int, default=0, help="niceness of the sweep (%(default)s)")
    where = parser.add_argument_group("the peer's environment")
    where.add_argument(
        "--environment",
        type=Path,
        default=ROOT / "build" / "peer" / "environment",
        metavar="FOLDER",
        help="where it is made (%(default)s)",
    )
    where.add_argument(
        "--peer-python", type=Path, metavar="PATH", help="makes it, or has Concrete ML already"
    )
    where.add_argument(
        "--published-torch", action="store_true", help="with the torch that it pins: several GB of CUDA"
    )
    where.add_argument("--pip-flags", default="", metavar="FLAGS", help="handed to pip")
    for side in ("peer", "our"):
        parser.add_argument(f"--{side}-worker", type=shlex.split, help=argparse.SUPPRESS)  # for tests
    return parser


if __name__ == "__main__":
    sys.exit(main())
