"""One compilation in a process of its own, for ``compile_time.py``: what it took, and what came out.

    python benchmarks/compile_once.py '{"model": ..., "calibration": ..., "out": ...}'

It runs on older revisions of onnx-fhe, too, so it imports only what they have.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import onnx_fhe
from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.ir.data import read_npz
from onnx_fhe.ir.errors import OnnxFheError
from onnx_fhe.ir.matching import calibration_for
from onnx_fhe.ir.runtime import Session
from onnx_fhe.passes.framework.instruments import Instrument
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.framework.pipeline import pass_name
from onnx_fhe.running import Stopwatch
from onnx_fhe.scoring import agreement


def main() -> None:
    """Compile as the first argument says, and write what was found to its ``out``."""
    given = json.loads(sys.argv[1])
    try:
        found = compile_once(given)
    except OnnxFheError as error:
        found = {"error": str(error)}
    except Exception:  # noqa: BLE001 - the others shall still be measured
        found = {"error": traceback.format_exc()}
    Path(given["out"]).write_text(json.dumps(found))


def compile_once(given: dict[str, Any]) -> dict[str, Any]:
    """The figures of one compilation.

    Args:
        given: ``model`` and ``calibration`` (paths), ``held_out`` (paths), ``pipeline``, ``backend``,
            ``seed``, and ``package``: the folder that onnx-fhe has to come from.
    """
    if not Path(onnx_fhe.__file__).is_relative_to(given["package"]):
        raise RuntimeError(f"measured would be {onnx_fhe.__file__}, not {given['package']}")
    # Without labels, so that nothing can look at them.
    data = dict(read_npz(given["calibration"]).arrays)
    options: dict[str, Any] = {"seed": given["seed"], "backend": given["backend"]}
    if "accept_loss" in inspect.signature(onnx_fhe.compile).parameters:
        options["accept_loss"] = True
    began, processor = time.perf_counter(), _processor()
    with warnings.catch_warnings(), watched() as passes, clocked() as stages:
        warnings.simplefilter("ignore")
        program = onnx_fhe.compile(given["model"], data, given["pipeline"], **options)
    seconds, processor = time.perf_counter() - began, _processor() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    statistics = program.statistics
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "stages": {name: stages[name] for name in program.seconds},
        "passes": passes,
        "bootstraps": statistics.programmable_bootstraps,
        "complexity": statistics.complexity or estimate(program.integer_model).complexity,
        "peak_memory_mb": peak * (1 if sys.platform == "darwin" else 1024) / 1e6,
        **_held_out(program, given),
    }


class Seconds(Instrument):
    """Adds up the processor seconds of each pass over all pipelines that are run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def before_pass(self, pass_: Any, model: Any) -> None:  # noqa: ARG002
        """A pass begins."""
        self._began = _processor()

    def after_pass(self, pass_: Any, model: Any, modified: bool) -> None:  # noqa: ARG002
        """It has ended."""
        name = pass_name(pass_)
        self.seconds[name] = self.seconds.get(name, 0.0) + _processor() - self._began


@contextlib.contextmanager
def watched() -> Iterator[dict[str, float]]:
    """While inside, the seconds of all passes, without those inside of passes, add up in what it yields.

    Instruments that `compile` is given would not do: for their sake it runs a pipeline once more.
    """
    watch, real, depth = Seconds(), PassManager.run, 0

    def run(self: Any, model: Any, context: Any = None, instruments: Any = (), **options: Any) -> Any:
        nonlocal depth
        depth += 1
        try:
            watching = [*instruments, watch] if depth == 1 else instruments
            return real(self, model, context, watching, **options)
        finally:
            depth -= 1

    PassManager.run = run  # type: ignore[method-assign]
    try:
        yield watch.seconds
    finally:
        PassManager.run = real  # type: ignore[method-assign]


@contextlib.contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """While inside, the processor seconds of every stage of `compile` add up in what it yields.

    The stages that a program tells are seconds of the clock, and say how busy the machine was.
    """
    found: dict[str, float] = {}
    real = Stopwatch.__call__

    @contextlib.contextmanager
    def measured(self: Any, step: str) -> Iterator[None]:
        began = _processor()
        with real(self, step):
            yield
        found[step] = found.get(step, 0.0) + _processor() - began

    Stopwatch.__call__ = measured  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Stopwatch.__call__ = real  # type: ignore[method-assign]


def _held_out(program: Any, given: dict[str, Any]) -> dict[str, Any]:
    """How well the integer model follows the network on inputs that compilation did not see."""
    if not given["held_out"]:
        return {"r2": None, "agreement": None}
    model = onnx_fhe.load(given["model"])
    parts = [calibration_for(model, read_npz(path)) for path in given["held_out"]]
    data = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    wanted, found = Session(model).run_batched(data), program.run(data).outputs
    return {
        "r2": min(_r2(found[k], v) for k, v in wanted.items()),
        "agreement": agreement(found, wanted, model),
    }


def _r2(found: np.ndarray, wanted: np.ndarray) -> float:
    """The share of what varies in an output that is reproduced, where it is least."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (found, wanted))
    varies = ((b - b.mean(axis=0)) ** 2).sum(axis=0)
    kept = varies > 0
    return float((1 - ((a - b) ** 2).sum(axis=0)[kept] / varies[kept]).min()) if kept.any() else 1.0


def _processor() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(x.ru_utime + x.ru_stime for x in spent)


if __name__ == "__main__":
    main()
