"""Small circuits that make Concrete choose a wanted parameter set, and the time that they take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from concrete import fhe

from ...analysis.cost.parameters import BootstrapParameters, KeyswitchParameters
from ...ir.errors import LimitError
from ...ir.p_error import DEFAULT_P_ERROR
from ..concrete_runtime import signals
from .bounds import DeclaredRanges, declare
from .parameters import products_of, steps_of

FEWER_LOOKUPS_DIVISOR = 6
"""The same lookups are timed again with so many times fewer, which tells what a call takes by itself."""


@dataclass(frozen=True)
class Probe:
    """A circuit of table lookups, side by side.

    Attributes:
        bits: Bits of each table.
        precision: How exact the result has to be, in bits (``analysis.widths.required_precision``).
        p_error: Tolerated error of one lookup.
        count: Number of lookups.
    """

    bits: int
    precision: float
    p_error: float = DEFAULT_P_ERROR
    count: int = 1


@dataclass(frozen=True)
class Times:
    """What a probe took.

    Attributes:
        bootstrap, keyswitch: The parameters that Concrete chose.
        complexity: Operations of one lookup, by Concrete's count.
        milliseconds: Time of one lookup, on one core.
        call: Seconds of a call besides its lookups.
        compile: Seconds.
        keygen: Seconds.
    """

    bootstrap: BootstrapParameters
    keyswitch: KeyswitchParameters
    complexity: float
    milliseconds: float
    call: float
    compile: float
    keygen: float


def compile_probe(probe: Probe, *, parallel: bool = False) -> Any:
    """Compile a probe: lookups, and behind them a constant that asks for exact results.

    Raises:
        LimitError: Concrete has no parameters for it.
    """
    size = 1 << probe.bits
    # The constant must fit the output: larger ones would be reduced to its width.
    out = max(2, probe.bits, math.ceil(probe.precision / 2) + 1)
    factor = max(1, round(2 ** (probe.precision - out)))

    def circuit(x: Any) -> Any:
        declare(x, 0, size - 1)
        y = fhe.univariate(lambda v: np.asarray(v) % size)(x)
        declare(y, 0, size - 1)
        z = y * factor
        declare(z, 0, 2**out - 1)
        return z

    samples = [np.zeros((probe.count,), np.int64), np.full((probe.count,), size - 1)]
    try:
        return fhe.Compiler(circuit, {"x": "encrypted"}).compile(
            samples,
            fhe.Configuration(
                p_error=probe.p_error,
                compress_evaluation_keys=True,
                loop_parallelize=parallel,
                additional_pre_processors=[DeclaredRanges()],
                dump_artifacts_on_unexpected_failures=False,
            ),
        )
    except RuntimeError as error:
        raise LimitError("Concrete has no parameters for this probe", found=str(probe)) from error


def chosen(circuit: Any) -> tuple[BootstrapParameters, KeyswitchParameters]:
    """The parameters of a probe's lookups.

    Raises:
        LimitError: It has no single set: what it asks for takes Concrete another way than bootstraps.
    """
    steps = steps_of(circuit.server)
    if len(steps) != 1 or steps[0].bootstrap is None or steps[0].keyswitch is None:
        raise LimitError("Concrete does not compute this probe with one parameter set", found=str(steps))
    return steps[0].bootstrap, steps[0].keyswitch


class Running:
    """A probe with keys, ready to be evaluated.

    Args:
        probe: What it is made of.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        began = time.perf_counter()
        self._circuit = compile_probe(probe)
        self._compiled = time.perf_counter() - began
        began = time.process_time()
        self._circuit.keygen(force=True)
        self._keygen = time.process_time() - began
        self._sent = self._circuit.encrypt(np.arange(probe.count, dtype=np.int64) % (1 << probe.bits))
        # The first call expands the keys.
        self.evaluate()

    @property
    def key_bytes(self) -> int:
        """Bytes of the evaluation keys as they are used."""
        bootstrap, keyswitch = chosen(self._circuit)
        return bootstrap.key_bytes + keyswitch.key_bytes

    def evaluate(self) -> None:
        """Compute all lookups on this thread."""
        with signals.kept():
            self._circuit.run(self._sent)

    def times(self, repeats: int) -> Times:
        """Processor times; the least of ``repeats`` calls."""
        bootstrap, keyswitch = chosen(self._circuit)
        # A call takes time of its own: what more lookups take more is theirs.
        count, few = self._probe.count, max(1, self._probe.count // FEWER_LOOKUPS_DIVISOR)
        small = compile_probe(replace(self._probe, count=few))
        small.keys = self._circuit.keys
        sent = small.encrypt(np.arange(few, dtype=np.int64) % (1 << self._probe.bits))
        small.run(sent)
        short = _best(lambda: small.run(sent), repeats, time.process_time)
        long = _best(self.evaluate, repeats, time.process_time)
        each = max(long - short, 0.5 * long) / (count - few) if count > few else long / count
        return Times(
            bootstrap,
            keyswitch,
            self._circuit.complexity / count,
            1e3 * each,
            max(0.0, long - count * each),
            self._compiled,
            self._keygen,
        )

    def loop_speedup(self, repeats: int) -> float:
        """How much faster Concrete's parallel loops are, by the clock on the wall."""
        parallel = compile_probe(self._probe, parallel=True)
        parallel.keys = self._circuit.keys
        parallel.run(self._sent)
        together = _best(lambda: parallel.run(self._sent), repeats, time.perf_counter)
        return _best(self.evaluate, repeats, time.perf_counter) / together


def product_nanoseconds(repeats: int, size: int = 64) -> float:
    """Time of one coefficient of a ciphertext that is multiplied by a constant and added, on one core."""
    weights = np.arange(size * size).reshape(size, size) % 7 - 3
    samples = [np.zeros((size,), np.int64), np.full((size,), 3)]
    settings = fhe.Configuration(loop_parallelize=False, dump_artifacts_on_unexpected_failures=False)
    circuit = fhe.Compiler(lambda x: x @ weights, {"x": "encrypted"}).compile(samples, settings)
    sent = circuit.encrypt(samples[1])
    with signals.kept():
        circuit.run(sent)
    seconds = _best(lambda: circuit.run(sent), max(3, repeats), time.process_time)
    return 1e9 * seconds / products_of(circuit.server)


def _best(call: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    """The least seconds of several calls."""
    least = math.inf
    for _ in range(repeats):
        began = clock()
        call()
        least = min(least, clock() - began)
    return least
