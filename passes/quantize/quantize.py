"""``quantize``: post-training quantization of a float model, layer by layer, on calibration data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ...analysis.regions.linear import linear_of
from ...analysis.regions.region_analysis import find_regions
from ...analysis.regions.regions import Regions
from ...ir.errors import PipelineError
from ...ir.level import Level, level_of
from ..framework.base import Context, Pass, option
from ..import_qat import detect
from .auto import LARGE_SAMPLES, LARGE_WEIGHTS, Widths, WidthSearch
from .bits import input_bits
from .equalize import equalize
from .observe import affordable
from .operands import MIN_OPERAND_BITS, choose_operands
from .quantization_run import QuantizationRun
from .settings import Calibration, QuantizationSettings


@dataclass(frozen=True)
class Quantize(Pass):
    """Put quantizers around the linear layers and turn their weights into small integers.

    Layers are treated in order; each sees the inputs that the quantized layers before really produce, and its
    gain and bias are refitted to the float model on them (recipe of docs/design/lowering.md, steps 1,
    2 and 6).
    """

    name: ClassVar[str] = "quantize"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT, Level.QDQ)
    produces: ClassVar[Level | None] = Level.QDQ
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    weights: int | Literal["auto"] = option(
        "auto",
        help="Bits of the weights; auto takes the fewest that keep the outputs within the tolerance (where"
        " there are more than 2 million weights, by few trials on few samples).",
        low=1,
        high=8,
    )
    activations: int = option(
        6, help="Bits of what each table puts out (they cost next to nothing).", low=1, high=8
    )
    operands: int | Literal["auto"] = option(
        "auto",
        help="Most bits of what operators on several encrypted elements read (max-pooling, products,"
        " comparisons): their tables take one bit more, those of pairs twice as many. auto: 4, and more where"
        " the outputs would leave the tolerance and there are not too many of them.",
        low=1,
        high=8,
    )
    inputs: int | Literal["auto"] = option(
        "auto", help="Bits of the encrypted inputs (they cost next to nothing).", low=1, high=8
    )
    max_bits: int = option(8, help="For auto: most bits that it takes.", low=2, high=8, formerly="most")
    tolerance: float = option(
        0.01,
        help="For auto: mean squared error of the outputs on calibration data, over their variance.",
        low=0,
    )
    calibration: Calibration = option("mse", help="How ranges of activations and weights are chosen.")
    percentile: float = option(
        99.9, help="Share of the values inside the range, in percent.", low=50, high=100
    )
    mixed: bool = option(
        False,
        help="For auto: lower single layers' widths by a sensitivity analysis while the tolerance allows.",
    )
    method: Literal["nearest", "gptq", "descent"] = option(
        "descent",
        help="How weights are rounded: each by itself, GPTQ, or coordinate descent on the layer's error.",
    )
    adapt: float = option(
        0.1,
        help="Ridge penalty of moving float weights to undo what the layers before lost; 0: do not.",
        low=0,
    )
    accumulator_bits: int | None = option(
        None,
        help="Change integer weights until every accumulator provably fits so many bits, whatever the input.",
        low=2,
        high=20,
    )
    max_weight_norm: float | None = option(
        None,
        help="Largest 2-norm of a neuron's integer weights, where they meet results of bootstraps: scales get"
        " coarser until it holds. 15 in front of outputs, and 64 in front of tables of 4 bits, keep the"
        " bootstraps before them at their cheapest.",
        low=1,
        formerly="norm",
    )
    refit: bool = option(True, help="Fit gain and bias of each layer to the float model.")
    per_neuron: bool = option(True, help="A scale per neuron where the next layer can absorb it.")
    scales: Literal["free", "power-of-two"] = option(
        "free",
        help="power-of-two: scales of weights, activations and inputs are powers of two, for hardware that"
        " only shifts. Tables and the client take any scale, so here it saves nothing.",
    )
    equalize: bool = option(
        False,
        help="Cross-layer equalization first. A scale per neuron does more; for per-neuron=false.",
    )
    layers: Mapping[str, Mapping[str, Any]] = option(
        {}, help="weights, activations and inputs for single layers, by node name."
    )

    def run(self, model: ir.Model, context: Context) -> bool:
        """Quantize ``model`` in place.

        Raises:
            DataError: There is no calibration data.
            UnsupportedError: A node of the encrypted part cannot be computed on encrypted data.
        """
        if level_of(model) is Level.QDQ:
            return False  # its integers are to stay as they are
        if detect.is_foreign(model):
            raise PipelineError(
                "the model was quantized by another tool",
                pass_name=self.name,
                found=detect.names(model),
                allowed="a float model, or one that import-qat has read",
                do="put import-qat between normalize and quantize",
            )
        given = context.require_calibration(self.name)
        data = affordable(model, given)
        if data is not given:
            context.notes.append(
                f"quantize: the first {len(next(iter(data.values())))} of"
                f" {len(next(iter(given.values())))} calibration samples are used, as memory allows"
            )
        regions = find_regions(model)
        self._check_layers(regions)
        if self.equalize:
            equalize(model, regions)
        settings = self._settings(regions)
        if self.weights == "auto" and any(linear_of(n) for n in regions.server):
            settings = self._with_weights(settings, model, data, regions, context)
        if self.operands == "auto" and not _is_large(regions):
            settings = self._with_operands(settings, model, data, regions, context)
        _quantize(model, data, settings, context)
        return True

    def _settings(self, regions: Regions) -> QuantizationSettings:
        """These options, each ``auto`` as it is where nothing is tried: what a search begins with."""
        weights = self.max_bits if self.weights == "auto" else self.weights
        return QuantizationSettings(
            weights=weights,
            activations=self.activations,
            inputs=self._inputs(weights, regions),
            operands=MIN_OPERAND_BITS if self.operands == "auto" else self.operands,
            calibration=self.calibration,
            percentile=self.percentile,
            method=self.method,
            adapt=self.adapt,
            accumulator_bits=self.accumulator_bits,
            max_weight_norm=self.max_weight_norm,
            refit=self.refit,
            per_neuron=self.per_neuron,
            scales=self.scales,
            layers=self.layers,
        )

    def _inputs(self, weights: int, regions: Regions) -> int:
        """Bits of the inputs that go with so many bits of the weights."""
        return input_bits(weights, regions) if self.inputs == "auto" else self.inputs

    def _with_weights(
        self,
        settings: QuantizationSettings,
        model: ir.Model,
        data: Mapping[str, np.ndarray],
        regions: Regions,
        context: Context,
    ) -> QuantizationSettings:
        """The settings with the fewest bits of the weights that keep the outputs within the tolerance."""
        large = _is_large(regions)
        few = {k: v[:LARGE_SAMPLES] for k, v in data.items()} if large else data
        trial = replace(settings, method="nearest", adapt=0.0) if large else settings

        def decided(settings: QuantizationSettings, widths: Widths) -> QuantizationSettings:
            return settings.with_weights(widths, self._inputs(max(widths.values(), default=8), regions))

        linear = [str(n.name) for n in regions.server if linear_of(n)]
        widths, error = WidthSearch(
            model,
            few,
            [n for n in linear if "weights" not in self.layers.get(n, {})],
            self.tolerance,
            self.max_bits,
            self.mixed,
            lambda m, widths: _quantize(m, few, decided(trial, widths), context),
            context,
            halving=large,
        ).run()
        if large:
            context.notes.append(
                f"quantize: in a network this large the widths of weights are chosen on {LARGE_SAMPLES}"
                " calibration samples, by weights rounded each by itself; weights=N saves the search"
            )
        chosen = decided(settings, widths)
        context.notes.append(
            f"quantize: weights of {', '.join(str(w) for w in widths.values())} bits, inputs of"
            f" {chosen.inputs}, activations of {self.activations}; they leave an output error of"
            f" {error:.2%} of the variance on calibration data"
        )
        return chosen

    def _with_operands(
        self,
        settings: QuantizationSettings,
        model: ir.Model,
        data: Mapping[str, np.ndarray],
        regions: Regions,
        context: Context,
    ) -> QuantizationSettings:
        """The settings with the bits of operands decided."""
        quiet = context.with_notes([])
        bits = choose_operands(
            model,
            data,
            regions,
            self.tolerance,
            lambda m, b: _quantize(m, data, replace(settings, operands=b), quiet),
            context,
        )
        return replace(settings, operands=bits)

    def _check_layers(self, regions: Regions) -> None:
        names = {n.name for n in regions.server}
        for layer, given in self.layers.items():
            if layer not in names:
                raise PipelineError(
                    f"quantize: there is no encrypted node {layer!r}",
                    pass_name=self.name,
                    allowed=", ".join(sorted(str(n.name) for n in regions.server if linear_of(n))),
                    do="use the node names that `onnx-fhe inspect` prints",
                )
            for key, bits in given.items():
                whole = isinstance(bits, int) and not isinstance(bits, bool)
                if key not in {"weights", "activations", "inputs"} or not whole or not 1 <= bits <= 8:
                    raise PipelineError(
                        f"quantize: layer {layer!r} takes no {key.replace('_', '-')}={bits}",
                        pass_name=self.name,
                        allowed="weights, activations and inputs, each 1 to 8",
                    )


def _quantize(
    model: ir.Model, data: Mapping[str, np.ndarray], settings: QuantizationSettings, context: Context
) -> None:
    """Quantize ``model`` in place; a search gives it clones, which have regions of their own."""
    QuantizationRun(settings, model, find_regions(model), data, context).run()


def _is_large(regions: Regions) -> bool:
    """Whether a network has too many weights to be quantized again and again."""
    return sum(math.prod(w.shape) for n in regions.server if (w := linear_of(n)) is not None) > LARGE_WEIGHTS
