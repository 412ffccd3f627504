"""Accuracy, cost and time of compiled networks: every model of a folder, as a table and as JSON.

    python benchmarks/bench.py examples
    python benchmarks/bench.py FOLDER --preset balanced --models mlp,cnn --encrypted 5 --json OUT.json

A model is NAME.onnx with NAME.calibration.npz and NAME.validation.npz or NAME.test.npz (or both) beside it,
as `onnx-fhe compile` and `onnx-fhe run` take them. README.md says what each figure is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
from measuring import Files, Settings, find, margin, measure

from onnx_fhe.cli.output import plain, working
from onnx_fhe.ir.errors import OnnxFheError
from onnx_fhe.ir.p_error import DEFAULT_P_ERROR
from onnx_fhe.ir.paths import write_bytes
from onnx_fhe.ir.range_options import DEFAULT_MARGIN
from onnx_fhe.passes.framework.presets import DEFAULT, PRESETS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when every model went through."""
    given = _parser().parse_args(arguments)
    settings = Settings(
        pipeline=given.pipeline or given.preset,
        modes=tuple(given.modes.split(",")),
        p_error=given.p_error,
        range_margin=given.range_margin,
        seed=given.seed,
        limit=given.limit,
        encrypted=given.encrypted,
    )
    try:
        models = find(given.folder, given.models.split(",") if given.models else None)
    except OnnxFheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report: dict[str, Any] = {
        **machine.describe(),
        "command": shlex.join(["python", "benchmarks/bench.py", *(arguments or sys.argv[1:])]),
        "settings": plain(settings),
        "models": [],
    }
    for files in models:
        print(f"{files.name} ...", file=sys.stderr)
        report["models"].append(_apart(files, settings))
        if given.json:  # after each model: a long run that is broken off leaves what it has
            write_bytes(given.json, (json.dumps(report, indent=2) + "\n").encode())
    print(to_markdown(report))
    return int(any("error" in m for m in report["models"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with models and their data")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--preset", choices=list(PRESETS), default=DEFAULT, help="pipeline by name (%(default)s)"
    )
    what.add_argument("-p", "--pipeline", help="pipeline as text")
    parser.add_argument("--models", metavar="A,B", help="only these; all by default")
    parser.add_argument(
        "--encrypted", type=int, default=0, metavar="N", help="run N samples encrypted as well"
    )
    parser.add_argument("--modes", default="observed,sound", help="range modes (%(default)s)")
    parser.add_argument(
        "--p-error", type=float, default=DEFAULT_P_ERROR, help="error of one lookup (%(default)s)"
    )
    parser.add_argument(
        "--range-margin", type=margin, default=DEFAULT_MARGIN, help="margin of ranges (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, metavar="N", help="score on the first N samples only")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures here")
    return parser


def _apart(files: Files, settings: Settings) -> dict[str, Any]:
    """Measure in a process of its own: its peak memory is the model's, and a crash ends no others."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(_measure, (files, settings))
    return found


def _measure(files: Files, settings: Settings) -> dict[str, Any]:
    try:
        with working() as progress:
            found: dict[str, Any] = plain(measure(files, settings, progress))
    except OnnxFheError as error:
        return {"model": files.name, "error": str(error)}
    except Exception:  # noqa: BLE001 - one model that fails must not end the others
        return {"model": files.name, "error": traceback.format_exc()}
    return found


def to_markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    done = [m for m in report["models"] if "error" not in m]
    parts = [
        f"`{report['command']}`, {report['date'][:10]}, {report['cores']} cores of {report['processor']}",
        _table(
            "model | ranges | float | clear | simulated | agreement | bootstraps | complexity, G | table bits"
            " | accumulator bits | overflows: values (samples) | compile, s",
            [_mode_row(m, mode, x) for m in done for mode, x in m["modes"].items()],
        ),
        _table(
            "model | samples scored | of them in calibration | integers compared with qdq | differ"
            " | by more than a step | peak memory, MB",
            [_check_row(m) for m in done],
        ),
    ]
    encrypted = [(m["model"], x["encrypted"]) for m in done for x in m["modes"].values() if x["encrypted"]]
    if encrypted:
        parts.append(
            _table(
                "model | samples encrypted | agreement | keys, s | encrypt, s | evaluate, s | decrypt, s",
                [_encrypted_row(*row) for row in encrypted],
            )
        )
    parts += [
        f"{m['model']} failed:\n\n```\n{m['error'].strip()}\n```" for m in report["models"] if "error" in m
    ]
    return "\n\n".join(parts)


def _mode_row(model: dict[str, Any], mode: str, found: dict[str, Any]) -> list[str]:
    return [
        model["model"],
        mode,
        _percent(model["float_accuracy"]),
        _percent(found["clear_accuracy"]),
        _percent(found["simulated_accuracy"]),
        _percent(found["agreement"]),
        str(found["programmable_bootstraps"]),
        f"{found['complexity'] / 1e9:.2f}",
        str(found["max_table_bits"]),
        str(found["max_accumulator_bits"]),
        f"{found['overflow_values']} ({found['overflow_samples']})",
        f"{found['compile_seconds']:.1f}",
    ]


def _check_row(model: dict[str, Any]) -> list[str]:
    levels = model["quantized"]
    shares = ["-", "-", "-"]
    if levels is not None:
        total = max(levels["values"], 1)
        shares = [
            str(levels["values"]),
            f"{levels['differ'] / total:.4%}",
            f"{levels['differ_by_more_than_a_step'] / total:.4%}",
        ]
    counts = [str(model["scored_samples"]), str(model["scored_samples_in_calibration"])]
    return [model["model"], *counts, *shares, str(model["peak_memory_mb"])]


def _encrypted_row(name: str, found: dict[str, Any]) -> list[str]:
    each = [f"{found[f'{k}_seconds_per_sample']:.2f}" for k in ("encrypt", "evaluate", "decrypt")]
    return [
        name,
        str(found["samples"]),
        _percent(found["agreement"]),
        f"{found['keygen_seconds']:.1f}",
        *each,
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _table(header: str, rows: list[list[str]]) -> str:
    names = header.split(" | ")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
