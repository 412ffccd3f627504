"""The errors that encryption brings, injected in the integer model: batched, and fast enough to search with.

A bootstrap decides which step of its table an accumulator belongs to after Gaussian noise has been added.
Concrete chooses parameters so that an accumulator in the middle of a step is misread with probability
``p_error``, so the noise has a standard deviation of ``0.5 / z`` steps, with z the two-sided normal
quantile of ``p_error``. Compared with Concrete's simulation (2,800 and more lookups each, tables of 3 to 6
bits, p_error 1e-5 and 1e-2): 0.113 to 0.116 steps measured for 0.113, and 0.17 to 0.22 for 0.194.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.batch_runner import Arrays
from ...ir.bits import bits_of
from ...ir.ops import Decrypt, RoundBits, TableLookup
from ...ir.p_error import DEFAULT_P_ERROR
from ..cost.bootstrap import allowed_precision, bootstrap_of
from ..widths.required_precision import output_precisions, required_precisions

BOUNDARY_SHIFT = 0.75
"""How much lower the boundaries of a table lie than half-way between two of its inputs, in slots of the
bootstrap's table."""
SMALL_P_ERROR = 1e-12
"""Below, the quantile of the noise is computed from the other end of the distribution."""
CHUNK_SAMPLES = 1024
"""Samples that noise is drawn for at once."""


def noise_steps(p_error: float) -> float:
    """Standard deviation of the noise in front of a table, in steps of the table.

    Args:
        p_error: Probability that a lookup in the middle of a step goes wrong.
    """
    if p_error < SMALL_P_ERROR:
        # 1 - p is 1 in floats.
        return -0.5 / NormalDist().inv_cdf(p_error / 2)
    return 0.5 / NormalDist().inv_cdf(1 - p_error / 2)


class NoisyModel:
    """An integer-level model whose tables misread their inputs as encrypted ones do; made once, run often.

    Args:
        model: Integer level; not changed.
        p_error: Probability that a lookup in the middle of a step goes wrong, where the lookup does not say
            (``set-p-error``).
        override: ``p_error`` holds whatever the lookups say.
    """

    def __init__(self, model: ir.Model, p_error: float = DEFAULT_P_ERROR, *, override: bool = False) -> None:
        noisy, scales = with_noise(model)
        self._session = runtime.Session(noisy)
        # Standard deviation in front of each table, in units of its accumulator.
        errors = {n: (not override and n.p_error) or p_error for n in scales.values()}
        quiet = _output_noise(model, p_error)
        self._sigmas = {
            str(v.name): np.float32(noise_steps(errors[n]) * n.step * quiet.get(n.output, 1.0))
            for v, n in scales.items()
        }
        self._biases = {str(v.name): np.float32(n.bias(errors[n])) for v, n in scales.items()}
        self._shapes = {
            str(v.name): [int(d) for d in list(v.shape or [])[1:]]  # type: ignore[arg-type]
            for v in scales
        }

    def run(self, data: Mapping[str, np.ndarray], seed: int = 0) -> Arrays:
        """The graph outputs by name, with errors.

        Args:
            data: Inputs by name, samples on axis 0.
            seed: The same seed gives the same errors.
        """
        random, total = np.random.default_rng(seed), len(next(iter(data.values())))
        parts = []
        for start in range(0, max(1, total), CHUNK_SAMPLES):
            given = {k: v[start : start + CHUNK_SAMPLES] for k, v in data.items()}
            samples = min(CHUNK_SAMPLES, total - start)
            drawn = {name: self._drawn(name, samples, random) for name in self._sigmas}
            parts.append(self._session.run_batched({**given, **drawn}))
        return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

    def _drawn(self, name: str, samples: int, random: np.random.Generator) -> np.ndarray:
        noise = random.standard_normal([samples, *self._shapes[name]], dtype=np.float32)
        noise *= self._sigmas[name]
        noise += self._biases[name]
        return noise


@dataclass(frozen=True)
class Noise:
    """What is added in front of a table.

    Attributes:
        step: Distance of two inputs that the table tells apart.
        p_error: Tolerated error of the lookup, where it has one.
        bits: Bits of the table; 0 for an output that is decrypted.
        rounds: Whether it is an approximate rounding.
        output: Name of the Decrypt that reads it, if it is one.
    """

    step: int
    p_error: float | None
    bits: int
    rounds: bool
    output: str = ""

    def bias(self, p_error: float) -> float:
        """What is added besides, in units of the accumulator (found in Concrete's simulation).

        A tie of approximate rounding goes up as surely as the next integer below it goes down: the boundary
        is between the two. And a bootstrap sees the accumulator in ``2 N`` slots of which the table has half:
        the boundary is most of a slot lower.
        """
        between = 0.5 if self.rounds and self.step > 1 else 0.0
        if not self.bits:
            return between
        slots = 2 * bootstrap_of(self.bits, p_error=p_error).parameters.polynomial_size
        return between + BOUNDARY_SHIFT * self.step * 2.0 ** (self.bits + 1) / slots


def with_noise(model: ir.Model) -> tuple[ir.Model, dict[ir.Value, Noise]]:
    """A copy of a model with one more input in front of every table, and what noise belongs there.

    What is fed there is added before approximate roundings (of tables and of raw outputs); a table without
    rounding adds it and then rounds to whole numbers. Exact roundings are left alone.
    """
    noisy = model.clone()
    scales: dict[ir.Value, Noise] = {}
    for node in list(noisy.graph):
        rounding, lookup = RoundBits.match(node), TableLookup.match(node)
        if rounding is not None and not rounding.is_exact:
            source, step = rounding.input, rounding.unit
        elif lookup is not None and lookup.rounding is None:
            # Every accumulator selects by itself, also where an entry holds for several.
            source, step = lookup.input, 1
        else:
            continue
        name = f"{node.name}_noise"
        noise = ir.Value(name=name, shape=source.shape, type=ir.TensorType(ir.DataType.FLOAT))
        noisy.graph.inputs.append(noise)
        scales[noise] = Noise(step, _p_error(node), _table_bits(node), rounding is not None, _output(node))
        added = ir.node("Add", [source, noise], name=f"{name}_added")
        nodes = [added]
        if rounding is None:
            # What selects an entry is an integer again after this.
            nodes.append(RoundBits.make(added.outputs[0], lsbs_to_remove=0, name=f"{name}_rounded"))
        for made in nodes:
            made.outputs[0].name = f"{made.name}_out"
            made.outputs[0].shape, made.outputs[0].type = source.shape, source.type
        noisy.graph.insert_before(node, nodes)
        node.replace_input_with(0, nodes[-1].outputs[0])
    return noisy, scales


def _p_error(node: ir.Node) -> float | None:
    """The p_error of a lookup, or of the lookups that read a rounding."""
    return min((t.p_error for t in _lookups(node) if t.p_error is not None), default=None)


def _output_noise(model: ir.Model, p_error: float) -> dict[str, float]:
    """Noise of what is decrypted, as a share of what would make errors with that probability, by Decrypt.

    No bootstrap stands behind it, whose own noise is most of what a table sees: what counts is how much less
    exact the bootstraps before could be for this output.
    """
    widths = [t.table_bits for t in TableLookup.all_in(model)]
    if not widths:
        return {}
    most = max(required_precisions(model).values(), default=0.0)
    allowed = allowed_precision(max(widths), most, p_error)
    return {name: min(1.0, 2.0 ** (own - allowed)) for name, own in output_precisions(model).items()}


def _output(node: ir.Node) -> str:
    readers = (Decrypt.match(u) for o in node.outputs for u, _ in o.uses())
    return next((d.name for d in readers if d is not None), "")


def _table_bits(node: ir.Node) -> int:
    return max((bits_of(0, t.size - 1, least=0) for t in _lookups(node)), default=0)


def _lookups(node: ir.Node) -> list[TableLookup]:
    """The lookup that ``node`` is, or those that read what it rounds."""
    nodes = [node, *(u for o in node.outputs for u, _ in o.uses())]
    return [t for n in nodes if (t := TableLookup.match(n)) is not None]
