"""``distill``: train the quantized network to imitate the imported one, on calibration inputs alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import onnx_ir as ir

from ...ir.errors import DataError, PipelineError, UnsupportedError, UserError
from ...ir.level import Level
from ..compress.prune.select import Scope
from ..framework.base import Context, Pass, option

if TYPE_CHECKING:
    from ..compress.remove_neurons.structure import Structure

LAYER_OPTIONS: dict[str, tuple[float, float, bool]] = {
    "sparsity": (0, 1, False),
    "remove": (0, 1, False),
    "nonzeros": (1, 2**31, True),
    "accumulator_bits": (2, 20, True),
    "rounding": (0, 8, True),
}
"""What ``layers`` takes: lowest, highest, and whether it has to be whole."""
_NEEDED = {"rounding": "a table behind it", "weights": "weights"}


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
    rate: float = option(0.02, help="Learning rate, in integer steps of a weight.", low=0)
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
    hold: float = option(
        0.15, help="Share of the calibration data held back to choose the best state.", low=0, high=0.5
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
    narrow: float = option(1.0, help="Penalty on weights that accumulator-bits has to cut off.", low=0)
    layers: Mapping[str, Mapping[str, Any]] = option(
        {}, help="rounding, sparsity, nonzeros, remove and accumulator-bits of single layers, by node name."
    )

    @property
    def removes(self) -> bool:
        """Whether neurons are to go."""
        return self.remove > 0 or self.latency is not None or bool(self.of_layers("remove"))

    def of(self, what: str, layer: str) -> Any:
        """The value of an option for one layer."""
        given = {k.replace("-", "_"): v for k, v in self.layers.get(layer, {}).items()}
        return given.get(what, getattr(self, what))

    def of_layers(self, what: str) -> dict[str, Any]:
        """The values of an option that are given for single layers."""
        return {name: self.of(what, name) for name, given in self.layers.items() if what in given}

    def check_layers(self, linear: set[str], tables: set[str]) -> None:
        """See that ``layers`` names layers, and what they take.

        Args:
            linear: Names of layers with weights.
            tables: Of layers behind which tables will stand: they may be given ``rounding``.

        Raises:
            PipelineError: It does not.
        """
        for layer, given in self.layers.items():
            needed = {"rounding" if k == "rounding" else "weights" for k in given}
            for what, names in (("rounding", tables), ("weights", linear)):
                if what in needed and layer not in names:
                    raise PipelineError(
                        f"distill: there is no layer with {_NEEDED[what]} called {layer!r}",
                        pass_name=self.name,
                        allowed=", ".join(sorted(names)) or "none in this model",
                        do="use the node names that `onnx-fhe inspect` prints",
                    )
            for key, value in given.items():
                low, high, whole = LAYER_OPTIONS.get(key.replace("-", "_"), (0, -1, False))
                number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
                if not number or not low <= value <= high:
                    raise PipelineError(
                        f"distill: layer {layer!r} takes no {key}={value}",
                        pass_name=self.name,
                        allowed="sparsity and remove to 1, nonzeros from 1, accumulator-bits 2 to 20,"
                        " rounding 0 to 8",
                    )

    def check_units(self, structure: Structure) -> None:
        """See that neurons of the layers for which ``remove`` is given can be removed.

        Raises:
            PipelineError: They cannot.
        """
        names = {str(n.name) for layer in structure.layers() for n in layer}
        for layer in self.of_layers("remove"):
            if layer not in names:
                raise PipelineError(
                    f"distill: no neurons of {layer!r} can be removed",
                    pass_name=self.name,
                    found=structure.reasons.get(layer, "none that could"),
                    allowed=", ".join(sorted(names)) or "nothing in this model",
                    do="use the node names that `onnx-fhe inspect` prints",
                )

    def run(self, model: ir.Model, context: Context) -> bool:
        """Train ``model`` in place.

        Raises:
            DataError: There is no calibration data, or too little.
            UserError: torch is not installed.
            UnsupportedError: An operator cannot be differentiated.
        """
        try:
            from .training.job import run
        except ImportError as error:
            refused: UserError = UnsupportedError(
                "distill needs PyTorch",
                found=str(error),
                do="install onnx-fhe[train], or leave distill out of the pipeline",
            )
            if not self.optional:
                raise refused from error
        else:
            try:
                return run(self, model, context)
            except (DataError, UnsupportedError) as error:
                if not self.optional:
                    raise
                refused = error
        context.notes.append(f"distill: left out: {refused.what} (found {refused.found}); {refused.do}")
        return False
