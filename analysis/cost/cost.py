"""The cost model: what a network costs, from bits that reach tables, weight norms and output widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...ir.graph import is_dialect
from ...ir.p_error import DEFAULT_P_ERROR, circuit_p_error
from ..expansion.expand import expanded
from ..regions.linear import linear_of
from ..regions.region_analysis import find_regions
from ..regions.regions import Regions
from .bootstrap import COST_GROWTH_PER_BIT, MAX_COST_GROWTH, MAX_MEASURED_TABLE_BITS, Bootstrap, bootstrap_of
from .lookup_cost import LayerCost, lookup_costs
from .parameters import WORD_BYTES, Step
from .timing import Timings, default_timings

NORM_STRATEGY_SHARE = 0.95
"""The backend has parameters chosen for each weight norm too where the complexity falls below this share."""


@dataclass(frozen=True)
class CostEstimate:
    """The cost of one sample.

    Attributes:
        layers: One entry for each table lookup.
        p_error: Tolerated error of one lookup that it holds for.
        multiplications: Ciphertexts that are multiplied by a constant.
        inputs, outputs: Ciphertexts that are sent and received.
        nodes: How many the graph has.
    """

    layers: tuple[LayerCost, ...]
    p_error: float = DEFAULT_P_ERROR
    multiplications: int = 0
    inputs: int = 0
    outputs: int = 0
    nodes: int = 0

    @property
    def bootstraps(self) -> int:
        """Programmable bootstraps."""
        return sum(layer.bootstraps for layer in self.layers)

    @property
    def complexity(self) -> float:
        """Operations, comparable to Concrete's own prediction."""
        return sum(layer.complexity for layer in self.layers)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The bootstraps with the parameters that Concrete will probably choose."""
        finer = [self._bootstrap(x, x.precision) for x in self.layers]
        worst: dict[int, float] = {}
        for layer in self.layers:
            worst[layer.table_bits] = max(layer.precision, worst.get(layer.table_bits, 0.0))
        plain = [self._bootstrap(x, worst[x.table_bits]) for x in self.layers]
        cheaper = self._together(finer) < NORM_STRATEGY_SHARE * self._together(plain)
        return tuple(
            Step(b.parameters, b.keyswitch, round(x.bootstraps * _stretch(x)))
            for x, b in zip(self.layers, finer if cheaper else plain, strict=True)
        )

    @property
    def products(self) -> float:
        """Coefficients of ciphertexts that are multiplied by a constant."""
        return float(self.multiplications * (self._dimension + 1))

    @property
    def input_bytes(self) -> int:
        """Ciphertexts sent."""
        return self.inputs * (self._dimension + 1) * WORD_BYTES

    @property
    def output_bytes(self) -> int:
        """Ciphertexts received."""
        return self.outputs * (self._dimension + 1) * WORD_BYTES

    def seconds(self, timings: Timings | None = None) -> float:
        """Time of one sample on one core.

        Args:
            timings: Timings of the machine; by default those that came with onnx-fhe.
        """
        known = timings or default_timings()
        return known.seconds(self.steps) + self.products * known.nanoseconds_per_product / 1e9

    @property
    def _dimension(self) -> int:
        return max(
            (s.bootstrap.output_dimension for s in self.steps if s.bootstrap), default=LEVELED_DIMENSION
        )

    def _bootstrap(self, layer: LayerCost, precision: float) -> Bootstrap:
        return bootstrap_of(layer.table_bits, precision, self.p_error)

    def _together(self, found: Sequence[Bootstrap]) -> float:
        return sum(b.complexity * x.lookups for b, x in zip(found, self.layers, strict=True))


MAX_TRIAL_WEIGHTS = 2_000_000
"""Weights of a network up to which changes are tried one by one; with more, that takes too long."""
MAX_TRIAL_PRODUCTS = 2**37
"""The same limit by multiplications: of the whole network, on all calibration samples."""

LEVELED_DIMENSION = 900
"""LWE dimension of ciphertexts, about, in a circuit without a bootstrap."""


def estimate(model: ir.Model, p_error: float = DEFAULT_P_ERROR) -> CostEstimate:
    """Estimate a model of the integer level, tables fused; maxima and products as the lookups they become.

    Args:
        model: Integer level.
        p_error: Tolerated error of one lookup, where the model does not say.
    """
    p_error = circuit_p_error(model, p_error)
    model = expanded(model)
    layers, multiplications, inputs, outputs = lookup_costs(model, p_error), 0, 0, 0
    for node in model.graph:
        if is_dialect(node, "Encrypt"):
            inputs += elements(node.outputs[0])
        elif is_dialect(node, "Decrypt"):
            outputs += elements(node.outputs[0])
        elif (linear := linear_of(node)) is not None:
            multiplications += elements(node.outputs[0]) * linear.fan_in
    nodes = len(list(model.graph))
    return CostEstimate(layers, p_error, multiplications, inputs, outputs, nodes)


def estimate_float(
    model: ir.Model, table_bits: int = 4, p_error: float = DEFAULT_P_ERROR, regions: Regions | None = None
) -> CostEstimate:
    """Estimate a normalized float model as it will be with ``table_bits`` bits at every table.

    Args:
        model: The model.
        table_bits: The bits.
        p_error: Tolerated error of one lookup.
        regions: Regions of the model, where they are known already.
    """
    layers = []
    for value in (regions or find_regions(model)).quantized:
        count = elements(value)
        producer = value.producer()
        name = str(producer.name) if producer is not None else str(value.name)
        each = bootstrap_of(table_bits, p_error=p_error).complexity
        layers.append(LayerCost(name, table_bits, count, count * each, 8.0, count))
    inputs = sum(elements(v) for v in model.graph.inputs)
    outputs = sum(elements(v) for v in model.graph.outputs)
    multiplications = 0
    for node in model.graph:
        linear = linear_of(node)
        if linear is not None:
            multiplications += elements(node.outputs[0]) * linear.fan_in
    nodes = len(list(model.graph))
    return CostEstimate(tuple(layers), p_error, multiplications, inputs, outputs, nodes)


def work(model: ir.Model) -> int:
    """Multiplications of the linear operators for one sample."""
    found = ((n, linear_of(n)) for n in model.graph)
    return sum(elements(n.outputs[0]) * linear.fan_in for n, linear in found if linear is not None)


def too_large_for_trials(model: ir.Model, samples: int) -> str:
    """Why trying out changes one by one would take hours, in words; empty where it would not.

    Args:
        model: Float level.
        samples: Calibration samples.
    """
    weights = sum(math.prod(x.shape) for n in model.graph if (x := linear_of(n)) is not None)
    products = work(model)
    if weights <= MAX_TRIAL_WEIGHTS and products * samples <= MAX_TRIAL_PRODUCTS:
        return ""
    return f"{weights:,} weights, {products:,} multiplications for each of {samples} calibration samples"


def elements(value: ir.Value) -> int:
    """Elements of a value for one sample; free axes count once."""
    return math.prod(d for d in list(value.shape or [])[1:] if isinstance(d, int))


def _stretch(layer: LayerCost) -> float:
    """What a bootstrap of a very wide table costs, in bootstraps of the widest that was measured."""
    wider = max(0, layer.table_bits - MAX_MEASURED_TABLE_BITS)
    return min(MAX_COST_GROWTH, COST_GROWTH_PER_BIT**wider)
