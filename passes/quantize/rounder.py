"""Rounding the weights of one layer: at the best scales, light enough, within an accumulator."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import onnx_ir as ir

from ...ir.errors import LimitError
from . import scales, weights
from .accumulator import fit_within
from .settings import QuantizationSettings
from .solvers import Factor, solve
from .units import Units

MAX_COARSENINGS = 40
"""Most times that scales are made coarser."""


class Rounder:
    """Makes integers of the weights of one layer, by the settings of ``quantize``.

    Args:
        options: What was asked for.
        node: The layer.
        matrix: (out, in) its weights.
        moments: Second moment (in, in) of the inputs of each group of output channels.
        bits: Width of the integers.
    """

    def __init__(
        self,
        options: QuantizationSettings,
        node: ir.Node,
        matrix: np.ndarray,
        moments: list[np.ndarray],
        bits: int,
    ) -> None:
        self.options, self.node = options, node
        self.matrix, self.moments, self.bits = matrix, moments, bits

    @cached_property
    def _factors(self) -> list[Factor]:
        return [Factor.of(m) for m in self.moments]

    def best(
        self, candidates: np.ndarray, *, move_scale: bool, rows: np.ndarray | None = None
    ) -> weights.QuantizedWeight:
        """The integers with the best of the candidate scales.

        Args:
            candidates: (candidates, out) scales.
            move_scale: Whether the solver may change them.
            rows: (out) the output channels that are wanted, where there is one group; all by default.
        """
        chosen = np.ones(len(self.matrix), bool) if rows is None else rows
        matrix, candidates = self.matrix[chosen], candidates[:, chosen]
        quantized = weights.fit_scales(matrix, self.moments, candidates, self.bits)
        if self.options.method == "nearest":
            return quantized
        return solve(
            matrix, self.moments, quantized, self.bits, self.options.method, move_scale, self._factors
        )

    def light(
        self, quantized: weights.QuantizedWeight, limit: float, *, any_scale: bool
    ) -> weights.QuantizedWeight:
        """The integers at scales that are coarse enough for the largest norm that is allowed.

        Args:
            quantized: The integers at the best scales.
            limit: Largest 2-norm of a channel's integers.
            any_scale: Whether scales need not be powers of two.
        """
        for _ in range(MAX_COARSENINGS):
            norms = np.sqrt((quantized.integers**2).sum(axis=1))
            heavy = norms > limit
            if not heavy.any():
                break
            growth = np.maximum(1.05, norms / limit) if any_scale else np.full(len(norms), 2.0)
            scale = np.where(heavy, quantized.scale * growth, quantized.scale)
            # Rows are rounded each by itself; in a grouped convolution each group has a moment of its own.
            again = heavy if len(self.moments) == 1 else np.ones_like(heavy)
            tried = self.best(scale[None], move_scale=False, rows=again)
            integers = quantized.integers.copy()
            integers[heavy] = tried.integers[heavy[again]]
            quantized = weights.QuantizedWeight(integers, scale)
        return quantized

    def within(
        self, quantized: weights.QuantizedWeight, bits: int, span: tuple[int, int] | None
    ) -> weights.QuantizedWeight:
        """The integers, changed so that the layer's accumulator fits ``bits`` bits, whatever the input.

        Args:
            quantized: The integers at the best scales.
            bits: Bits of the accumulator.
            span: Range of the integers that the layer reads.

        Raises:
            LimitError: That range is not known.
        """
        if span is None:
            raise LimitError(
                "the range of what this layer reads is not known, so no accumulator width can be promised",
                node=self.node.name or "",
                op=self.node.op_type,
                found="integers that do not come from a quantizer",
                do="leave accumulator-bits out, or prune by the observed width",
            )
        fits = [quantized]
        for coarser in (1.5, 2.0, 3.0) if self.options.scales == "free" else (2.0, 4.0):
            scale = quantized.scale * coarser
            fits.append(weights.QuantizedWeight(weights.round_weights(self.matrix, scale, self.bits), scale))
        return fit_within(fits, self.matrix, self.moments, *span, bits)


def rounded(
    options: QuantizationSettings,
    node: ir.Node,
    matrix: np.ndarray,
    moments: list[np.ndarray],
    units: Units,
    reference: np.ndarray | None,
    *,
    fresh: bool,
) -> weights.QuantizedWeight:
    """The integers and scales of a layer's weights, within the limits that the options set.

    Args:
        options: Of the pass.
        node: The layer.
        matrix: (out, in) of each of its channels, in float.
        moments: Second moments of what each of its groups reads.
        units: Of all tensors.
        reference: Steps of the tensor that its output is added to, if it is.
        fresh: Whether it reads fresh encryptions, whose noise large weights may multiply.
    """
    bits, powers = options.bits("weights", node), options.scales == "power-of-two"
    if reference is None:
        candidates = weights.candidate_scales(matrix, bits, options.calibration)
    else:
        candidates = scales.commensurate(matrix, bits, reference / units.of(node.inputs[0]))
    if powers:
        candidates = weights.powers_of_two(candidates)
    rounder = Rounder(options, node, matrix, moments, bits)
    quantized = rounder.best(candidates, move_scale=reference is None and not powers)
    if options.max_weight_norm is not None and reference is None and not fresh:
        quantized = rounder.light(quantized, options.max_weight_norm, any_scale=not powers)
    if options.accumulator_bits is not None:
        quantized = rounder.within(quantized, options.accumulator_bits, units.integers(node.inputs[0]))
    return quantized
