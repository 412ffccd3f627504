"""What one run of ``distill`` is asked for, in the parts that its training is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...ir.errors import PipelineError
from ..compress.prune.select import Scope

if TYPE_CHECKING:
    from ..compress.remove_neurons.goal import RemovalTarget
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
class Teaching:
    """What is imitated, and on which samples (options of ``distill``).

    Attributes:
        validation_share: Share of the calibration data that is held back.
        augment: Samples made of each calibration sample.
        loss, temperature: What is imitated, and how class scores are softened.
        labels: Whether the labels of the calibration data are learned too.
        match: Weight of what layers of the same name put out.
    """

    validation_share: float
    augment: int
    loss: Literal["auto", "classes", "values"]
    temperature: float
    labels: bool
    match: float


@dataclass(frozen=True)
class WeightLimits:
    """What weights and activations are held to while they are trained (options of ``distill``).

    Attributes:
        sparsity, nonzeros, scope: Which weights become zero.
        keep_zeros: Whether all weights stay zero that come as zero.
        accumulator_bits, accumulator_penalty: What accumulators have to fit, and what it costs a weight
            that does not.
        spread: Penalty on ranges much wider than what they mostly hold.
    """

    sparsity: float | None
    nonzeros: int | None
    scope: Scope
    keep_zeros: bool
    accumulator_bits: int | None
    accumulator_penalty: float
    spread: float


@dataclass(frozen=True)
class LayerOptions:
    """Options of single layers, by node name."""

    values: Mapping[str, Mapping[str, Any]]

    def of(self, what: str, layer: str, default: Any) -> Any:
        """The value of an option for one layer, or ``default`` where none is given for it."""
        given = {k.replace("-", "_"): v for k, v in self.values.get(layer, {}).items()}
        return given.get(what, default)

    def given(self, what: str) -> dict[str, Any]:
        """The values of an option that are given for single layers."""
        return {name: self.of(what, name, None) for name, given in self.values.items() if what in given}

    def check(self, linear: set[str], tables: set[str]) -> None:
        """See that the names are those of layers, and that these take their options.

        Args:
            linear: Names of layers with weights.
            tables: Names of layers behind which tables will stand: they may be given ``rounding``.

        Raises:
            PipelineError: They are not, or do not.
        """
        for layer, given in self.values.items():
            needed = {"rounding" if k == "rounding" else "weights" for k in given}
            for what, names in (("rounding", tables), ("weights", linear)):
                if what in needed and layer not in names:
                    raise PipelineError(
                        f"distill: there is no layer with {_NEEDED[what]} called {layer!r}",
                        pass_name="distill",
                        allowed=", ".join(sorted(names)) or "none in this model",
                        do="use the node names that `onnx-fhe inspect` prints",
                    )
            for key, value in given.items():
                low, high, whole = LAYER_OPTIONS.get(key.replace("-", "_"), (0, -1, False))
                number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
                if not number or not low <= value <= high:
                    raise PipelineError(
                        f"distill: layer {layer!r} takes no {key}={value}",
                        pass_name="distill",
                        allowed="sparsity and remove to 1, nonzeros from 1, accumulator-bits 2 to 20,"
                        " rounding 0 to 8",
                    )

    def check_units(self, structure: Structure) -> None:
        """See that neurons of the layers for which ``remove`` is given can be removed.

        Raises:
            PipelineError: They cannot.
        """
        names = {str(n.name) for layer in structure.layers() for n in layer}
        for layer in self.given("remove"):
            if layer not in names:
                raise PipelineError(
                    f"distill: no neurons of {layer!r} can be removed",
                    pass_name="distill",
                    found=structure.reasons.get(layer, "none that could"),
                    allowed=", ".join(sorted(names)) or "nothing in this model",
                    do="use the node names that `onnx-fhe inspect` prints",
                )


@dataclass(frozen=True)
class TrainingSettings:
    """One run of ``distill``.

    Attributes:
        rounding: Bits that will reach each table, or ``auto`` to try.
        steps, batch, rate, scale_rate, seconds: How long and how fast is trained.
        required: Whether training was asked for, and is not left out where there is little calibration data.
        teaching: What is imitated.
        limits: What weights and activations are held to.
        removal: Which neurons are to go, if any.
        layers: Options of single layers.
    """

    rounding: int | Literal["auto"]
    steps: int
    batch: int
    learning_rate: float
    scale_rate: float
    seconds: float | None
    required: bool
    teaching: Teaching
    limits: WeightLimits
    removal: RemovalTarget | None
    layers: LayerOptions
