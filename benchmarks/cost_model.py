"""Predicted against measured: seconds of one encrypted sample, of compiling and of making keys, sizes of keys
and ciphertexts, memory, and throughput.

    python benchmarks/cost_model.py [--folder examples] [--names digits_mlp] [--jobs 2] [-o report.json]

Each model is compiled with several pipelines and errors. ``before`` is predicted from the integer model,
before it is compiled; ``after`` from the parameters that Concrete chose. Measured is the best of a few calls,
by the processor's clock on one core, which other programs disturb little; with ``--wall`` by the other clock.
Memory is the most that a new process takes that loads the circuit, makes keys and evaluates two samples.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import describe

import onnx_fhe
from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.circuits import find_backend
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.p_error import DEFAULT_P_ERROR
from onnx_fhe.machine import Profile, predict
from onnx_fhe.program import Program
from onnx_fhe.prologue import Prologue

ROOT = Path(__file__).resolve().parent.parent
PIPELINES = {
    "balanced": ("balanced", None),
    "balanced, p_error 1e-2": ("balanced", 1e-2),
    "fast": ("fast", None),
}


AFTER = ("seconds", "keygen_seconds", "key_bytes", "memory_bytes")
BEFORE = (*AFTER, "compile_seconds", "input_bytes", "output_bytes")
"""What is predicted once Concrete has chosen its parameters, and before."""


def measured(program: Program, inputs: dict[str, np.ndarray], calls: int, wall: bool) -> dict[str, float]:
    """Seconds of keys and of one sample, and bytes of keys; all loops on one thread."""
    clock = time.perf_counter if wall else time.process_time
    values = _values(program, {k: v[:1] for k, v in inputs.items()})
    session = program.circuit.session()
    began = clock()
    session.keygen()
    keygen = clock() - began
    sent = session.encrypt(values)
    began = clock()
    session.evaluate_alone(sent)
    first, times = clock() - began, []
    for _ in range(calls):
        began = clock()
        session.evaluate_alone(sent)
        times.append(clock() - began)
    return {
        "seconds": min(times),
        "first": first,
        "keygen_seconds": keygen,
        "key_bytes": float(len(session.evaluation_keys())),
    }


def compiling(program: Program, p_error: float | None, wall: bool) -> float:
    """Seconds of making the circuit of the integer model."""
    clock = time.perf_counter if wall else time.process_time
    began = clock()
    find_backend("concrete").lower(program.integer_model, LowerOptions(p_error=p_error or DEFAULT_P_ERROR))
    return clock() - began


def memory(path: Path, data: Path) -> float:
    """In a process of its own: bytes that it takes at most while it computes."""
    Program.load(path).encrypted(read_npz(data), 2)
    # Not what getrusage says: that begins with what the process that started this one had.
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(status.split("VmHWM:")[1].split()[0])


def _memory(program: Program, data: Path) -> float:
    # A process that has compiled takes more than one that only computes.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "circuit.fhe"
        program.save(path)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(memory, (path, data))


def _values(program: Program, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the client encrypts."""
    return Prologue(program.parts).run(inputs)[0]


def compare(model: Path, pipeline: str, p_error: float | None, options: argparse.Namespace) -> dict[str, Any]:
    """Predictions and measurements of one circuit."""
    profile = Profile.load(options.machine) if options.machine else Profile.here()
    program = onnx_fhe.compile(model, model.with_suffix(".calibration.npz"), pipeline, p_error=p_error)
    before = predict(program.integer_model, profile, p_error=p_error or DEFAULT_P_ERROR, cores=1)
    after = predict(program.statistics, profile, cores=1)
    data = model.with_suffix(".test.npz")
    inputs = read_npz(data).arrays
    found_in = program.statistics
    real = {
        **measured(program, inputs, options.calls, options.wall),
        "compile_seconds": compiling(program, p_error, options.wall),
        "memory_bytes": _memory(program, data),
        # As Concrete counts them, once the circuit is made.
        "input_bytes": float(found_in.input_bytes),
        "output_bytes": float(found_in.output_bytes),
    }
    found = {
        "bootstraps": program.statistics.programmable_bootstraps,
        "measured": real,
        "before": {k: getattr(before, k) for k in BEFORE},
        "after": {k: getattr(after, k) for k in AFTER},
        "load": os.getloadavg()[0],
    }
    if options.jobs > 1:
        found["throughput"] = throughput(program, inputs, options)
    return found


def throughput(
    program: Program, inputs: dict[str, np.ndarray], options: argparse.Namespace
) -> dict[str, Any]:
    """Samples a second, by turns: one core; all loops on all cores; a call on each core.

    Each with one sample a call, and with several. Medians; of two ways, the median of their ratio in a round.
    """
    jobs, each = options.jobs, {}
    for batch in (1, options.batch):
        session = program.circuit.session(batch)
        session.keygen()
        sent = session.encrypt(_values(program, {k: v[:batch] for k, v in inputs.items()}))
        calls = max(jobs, options.batch // batch)
        ways: dict[str, Callable[[], Any]] = {
            "one core": partial(_often, session.evaluate_alone, sent, calls),
            "loops": partial(_often, session.evaluate, sent, calls),
            "jobs": partial(_shared, session.evaluate_alone, sent, calls, jobs),
        }
        session.evaluate_alone(sent)
        session.evaluate(sent)
        each |= {f"{k}, {batch} a call": (run, calls * batch) for k, run in ways.items()}
    rates: dict[str, list[float]] = {k: [] for k in each}
    for _ in range(options.rounds):
        for way, (run, samples) in each.items():
            began = time.perf_counter()
            run()
            rates[way].append(samples / (time.perf_counter() - began))
    found: dict[str, Any] = {k: median(v) for k, v in rates.items()}
    found["speedup"] = {
        f"{k} / {one}": median(x / y for x, y in zip(rates[k], rates[one], strict=True))
        for k in each
        for one in dict.fromkeys((f"one core, {k.split(', ')[1]}", "one core, 1 a call"))
        if k != one
    }
    return found


def _often(call: Callable[[Any], Any], sent: Any, times: int) -> None:
    for _ in range(times):
        call(sent)


def _shared(call: Callable[[Any], Any], sent: Any, times: int, jobs: int) -> None:
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(call, [sent] * times))


def main() -> None:
    """Compare, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "examples")
    parser.add_argument("--names", nargs="*", default=["digits_mlp"])
    parser.add_argument("--pipelines", nargs="*", choices=list(PIPELINES), default=list(PIPELINES))
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1, help="measure the throughput of so many cores, too")
    parser.add_argument("--batch", type=int, default=8, help="and with so many samples a call (%(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="of measuring it, by turns (%(default)s)")
    parser.add_argument("--machine", type=Path, help="a profile; by default this machine's")
    parser.add_argument("--wall", action="store_true", help="by the clock on the wall: on a quiet machine")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    circuits = {}
    for name in options.names:
        for title in options.pipelines:
            pipeline, p_error = PIPELINES[title]
            found = compare(options.folder / f"{name}.onnx", pipeline, p_error, options)
            circuits[f"{name}, {title}"] = found
            print(name, title, json.dumps(found), flush=True)
    errors = {
        when: {
            what: median(abs(c[when][what] / c["measured"][what] - 1) for c in circuits.values())
            for what in whats
        }
        for when, whats in (("before", BEFORE), ("after", AFTER))
    }
    report = {"machine": describe(), "median_relative_error": errors, "circuits": circuits}
    print(json.dumps(errors, indent=1))
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
