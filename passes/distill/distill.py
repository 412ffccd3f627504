"""``distill``: train the quantized network to imitate the imported one, on calibration inputs alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from ...ir.errors import DataError, UnsupportedError, UserError
from ...ir.level import Level
from ..compress.prune.select import Scope
from ..compress.remove_neurons.goal import RemovalTarget
from ..framework.base import Context, Pass, option
from .settings import LayerOptions, Teaching, TrainingSettings, WeightLimits


@dataclass(frozen=True)
class Distill(Pass):
    """Self-distillation: the model in the pipeline is the student, the model as imported the teacher.

    Weights, biases and scales are trained through straight-through fake quantization (Jacob et al. 2018;
    scales as in LSQ, Esser et al. 2020), with the rounding of accumulators and the noise of bootstraps in
    place, as the circuit will have them. It reads calibration data only, and no labels unless asked to.
    """

    name: ClassVar[str] = "distill"
    accepts: ClassVar[tuple[Level, ...]] = (Level.QDQ,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    rounding: int | Literal["auto"] = option(
        "auto",
        help="Bits that will reach each table, found again by insert-rounding; 0: no rounding; auto: the"
        " fewest of 4 and 5 with which the student agrees with the teacher.",
        low=0,
        high=8,
    )
    steps: int = option(4000, help="Batches to train on.", low=1)
    batch: int = option(128, help="Samples in a batch.", low=1)
    learning_rate: float = option(
        0.02, help="Learning rate, in integer steps of a weight.", low=0, formerly="rate"
    )
    scale_rate: float = option(
        0.1,
        help="Learning rate of scales and biases, over that of weights; more where inputs are few and samples"
        " many.",
        low=0,
    )
    seconds: float | None = option(None, help="Stop after so long and keep the best so far.", low=0)
    temperature: float = option(2.0, help="Softens class scores.", low=0.1)
    loss: Literal["auto", "classes", "values"] = option(
        "auto", help="Imitate classes, or values; auto looks at the outputs."
    )
    labels: bool = option(False, help="Also train on the labels of the calibration data.")
    validation_share: float = option(
        0.15,
        help="Share of the calibration data held back to choose the best state.",
        low=0,
        high=0.5,
        formerly="hold",
    )
    optional: bool = option(
        False,
        help="Go without, with a note, where PyTorch, calibration data or an operator stands in the way.",
    )
    augment: int = option(30, help="Mixed, noisy and shifted samples for each calibration sample.", low=0)
    spread: float = option(0.003, help="Penalty on ranges much wider than what they mostly hold.", low=0)
    match: float = option(
        0.0, help="Also imitate what layers of the same name put out: weight of that, at first.", low=0
    )
    sparsity: float | None = option(
        None, help="Share of the weights that become zero while training, the smallest first.", low=0, high=1
    )
    nonzeros: int | None = option(
        None, help="Most non-zero weights that each neuron keeps; the others go while training.", low=1
    )
    scope: Scope = option(
        "layer", help="What sparsity is a share of: the network, each layer or each neuron."
    )
    keep_zeros: bool = option(
        False,
        help="Keep all weights zero that come as zero; those that prune set to zero stay so in any case.",
    )
    remove: float = option(
        0.0,
        help="Share of the neurons and channels that go while training, the least important first.",
        low=0,
        high=1,
    )
    balance: Literal["global", "uniform"] = option(
        "global", help="Whether remove is a share of all layers together, or of each layer."
    )
    latency: float | None = option(
        None,
        help="Instead of remove: let neurons go until the estimate for one sample is at most these seconds.",
        low=0,
    )
    accumulator_bits: int | None = option(
        None,
        help="Train weights whose accumulators provably fit so many bits, whatever the input.",
        low=2,
        high=20,
    )
    accumulator_penalty: float = option(
        1.0, help="Penalty on weights that accumulator-bits has to cut off.", low=0, formerly="narrow"
    )
    layers: Mapping[str, Mapping[str, Any]] = option(
        {}, help="rounding, sparsity, nonzeros, remove and accumulator-bits of single layers, by node name."
    )

    @property
    def settings(self) -> TrainingSettings:
        """What one run is asked for."""
        layers = LayerOptions(self.layers)
        removal = None
        if self.remove > 0 or self.latency is not None or layers.given("remove"):
            removal = RemovalTarget(
                self.remove,
                self.balance == "uniform",
                layers.given("remove"),
                None if self.latency is None else self.latency * 1000,
            )
        return TrainingSettings(
            rounding=self.rounding,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            scale_rate=self.scale_rate,
            seconds=self.seconds,
            required=not self.optional,
            teaching=Teaching(
                self.validation_share, self.augment, self.loss, self.temperature, self.labels, self.match
            ),
            limits=WeightLimits(
                self.sparsity,
                self.nonzeros,
                self.scope,
                self.keep_zeros,
                self.accumulator_bits,
                self.accumulator_penalty,
                self.spread,
            ),
            removal=removal,
            layers=layers,
        )

    def run(self, model: ir.Model, context: Context) -> bool:
        """Train ``model`` in place.

        Raises:
            DataError: There is no calibration data, or too little.
            UserError: torch is not installed.
            UnsupportedError: An operator cannot be differentiated.
        """
        try:
            from .training.distillation_run import run
        except ImportError as error:
            refused: UserError = UnsupportedError(
                "distill needs PyTorch",
                found=str(error),
                do="pip install 'onnx-fhe[train]', or leave distill out of the pipeline",
            )
            if not self.optional:
                raise refused from error
        else:
            try:
                return run(self.settings, model, context)
            except (DataError, UnsupportedError) as error:
                if not self.optional:
                    raise
                refused = error
        context.notes.append(f"distill: left out: {refused.what} (found {refused.found}); {refused.do}")
        return False
