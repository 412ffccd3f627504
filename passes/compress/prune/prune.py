"""``prune``: set weights to zero, by a sparsity or until every accumulator fits a number of bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import linear_of
from ....ir.errors import PipelineError
from ....ir.level import Level
from ...framework.base import Context, Pass, option
from .bounds import Bound
from .pruning_run import PruneSettings, PruningRun
from .select import Scope


@dataclass(frozen=True)
class Prune(Pass):
    """Unstructured pruning: single weights become zero, and stay zero through ``quantize``.

    By ``sparsity``: the least important share goes, by magnitude (``l1``) or by what the layer's output
    loses when the weights that stay make up for it (``obs``, on calibration data, layer after layer on the
    inputs that the pruned layers before produce).

    By ``accumulator-bits``: until accumulators fit so many bits after quantization with ``weights``,
    ``inputs`` and ``activations`` bits. ``bound=omega`` keeps floor((2^N - 1) / ((2^weights - 1)(2^inputs -
    1))) weights of each neuron: a guarantee while ``multiplier`` is 1, whatever integers ``quantize`` then
    chooses. With a larger multiplier it is a heuristic, for real weights rarely reach the worst case: check
    the widths with ``analyze-ranges``. ``bound=l1`` looks at the weights' real norm, as min-max rounding
    would make integers of them, and keeps far more; ``quantize{accumulator-bits=N}`` makes that a guarantee
    for the final integers.
    """

    name: ClassVar[str] = "prune"
    accepts: ClassVar[tuple[Level, ...]] = (Level.FLOAT,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    sparsity: float | None = option(None, help="Share of the weights that become zero.", low=0, high=1)
    scope: Scope = option("layer", help="What that is a share of: the network, each layer or each neuron.")
    method: Literal["l1", "obs"] = option(
        "l1",
        help="Remove the smallest weights, or those the output misses least once the others make up for it.",
    )
    accumulator_bits: int | None = option(
        None, help="Prune until every accumulator fits so many bits after quantization.", low=2, high=24
    )
    bound: Bound = option("omega", help="Limit a neuron by its number of weights, or by their norm.")
    multiplier: float = option(1.0, help="Slack of the bound; above 1 nothing is guaranteed.", low=0)
    weights: int = option(3, help="Bits that quantize will give weights (for the bound).", low=1, high=8)
    activations: int = option(
        3, help="Bits that quantize will give activations (for the bound).", low=1, high=8
    )
    inputs: int = option(5, help="Bits that quantize will give inputs (for the bound).", low=1, high=8)
    refit: bool = option(True, help="Refit biases to the float model, where there is calibration data.")
    layers: Mapping[str, float] = option({}, help="Sparsity of single layers, by node name.", low=0, high=1)

    def run(self, model: ir.Model, context: Context) -> bool:
        """Prune ``model`` in place.

        Raises:
            PipelineError: Nothing was asked for, or ``layers`` names a node without weights.
            DataError: ``method=obs`` and there is no calibration data.
            LimitError: Not even one weight of a neuron fits the accumulator.
        """
        linear = [n for n in model.graph if linear_of(n) is not None]
        names = [str(n.name) for n in linear]
        for layer in self.layers:
            if layer not in names:
                raise PipelineError(
                    f"prune: there is no layer with weights called {layer!r}",
                    pass_name=self.name,
                    allowed=", ".join(sorted(names)),
                    do="use the node names that `onnx-fhe inspect` prints",
                )
        if self.sparsity is None and self.accumulator_bits is None and not self.layers:
            raise PipelineError(
                "prune was not told how much",
                pass_name=self.name,
                allowed="sparsity, accumulator-bits or layers",
                do="write prune{sparsity=0.5} or prune{accumulator-bits=8}",
            )
        data = context.require_calibration(self.name) if self.method == "obs" else context.calibration
        before = _zeros(linear)
        settings = PruneSettings(
            shares={name: float(self.layers.get(name, self.sparsity or 0.0)) for name in names},
            scope=self.scope,
            method=self.method,
            refit=self.refit,
            accumulator_bits=self.accumulator_bits,
            bound=self.bound,
            multiplier=self.multiplier,
            weights=self.weights,
            activations=self.activations,
            inputs=self.inputs,
        )
        modified = PruningRun(settings, model, data, context).run()
        zeros, total = _zeros(linear), _sizes(linear)
        context.notes.append(
            f"prune: {zeros} of {total} weights are zero ({zeros / max(1, total):.0%}), {before} were before"
        )
        return modified


def _weights(nodes: list[ir.Node]) -> list[np.ndarray]:
    return [linear.weight for n in nodes if (linear := linear_of(n)) is not None]


def _zeros(nodes: list[ir.Node]) -> int:
    return sum(int(w.size - np.count_nonzero(w)) for w in _weights(nodes))


def _sizes(nodes: list[ir.Node]) -> int:
    return sum(int(w.size) for w in _weights(nodes))
