"""Raising single layers: more bits for the tables that keep a network from deciding as it should."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....analysis.cost.cost import estimate
from ....analysis.noise.noise import NoisyModel
from ....analysis.outputs.classes import Kind, changed, kind_of, scores
from ....analysis.outputs.divergence import output_error, worst_error
from ...framework.base import Context
from .rounding_setting import RoundingSetting
from .whole import TARGET_LOSS

MAX_CHANGED_CLASSES = 0.02
"""Share of the calibration samples whose class rounding and noise may change."""
AFFORDABLE_OPERATIONS = 28e9
"""Operations of all bootstraps together, some five seconds on one core, up to which layers are raised."""
RAISE_LOSS_SHARE = 0.9
"""A raise has to bring the loss down to this share."""
RAISE_PRICE_EXPONENT = 2 / 3
"""It also has to divide the loss by the factor of its price raised to this power: a circuit that costs twice
as much has to lose 0.63 of what it lost."""
NOISE_DRAWS = 3
"""Draws of noise that a trial is judged by."""


@dataclass(frozen=True)
class Loss:
    """What rounding and the noise of encryption cost a network.

    Attributes:
        kind: Kind of the outputs.
        wanted: The outputs of the unrounded model on calibration data.
        network: Those of the imported network, where it computes values and all that is lost counts, not only
            what rounding loses.
    """

    kind: Kind
    wanted: list[np.ndarray]
    network: list[np.ndarray] | None = None

    @classmethod
    def of(cls, model: ir.Model, wanted: list[np.ndarray]) -> Loss:
        """The loss of roundings of ``model``."""
        return cls(kind_of(wanted, scores(model), list(model.graph.outputs)), wanted)

    def total(self, rounded: ir.Model, data: Mapping[str, np.ndarray], context: Context) -> float:
        """What is lost in all of the worst value that the network puts out, as a share of its variance."""
        assert self.network is not None
        found = NoisyModel(rounded, context.target.p_error).run(data, context.seed)
        return worst_error(list(found.values()), self.network)

    def error(self, rounded: ir.Model, data: Mapping[str, np.ndarray], context: Context) -> float:
        """Mean squared error over the variance of the outputs."""
        found = NoisyModel(rounded, context.target.p_error).run(data, context.seed)
        return output_error(list(found.values()), self.wanted)

    def excess(
        self, rounded: ir.Model, data: Mapping[str, np.ndarray], tolerance: float, context: Context
    ) -> float:
        """The error as a multiple of what is tolerated, or the share of changed classes, if that is more."""
        if self.network is not None:
            return self.total(rounded, data, context) / TARGET_LOSS
        noisy = NoisyModel(rounded, context.target.p_error)
        found = [list(noisy.run(data, context.seed + i).values()) for i in range(NOISE_DRAWS)]
        error = float(np.mean([output_error(f, self.wanted) for f in found])) / max(tolerance, 1e-12)
        if self.kind == "values":
            return error
        return max(
            error, float(np.mean([changed(f[0], self.wanted[0]) for f in found])) / MAX_CHANGED_CLASSES
        )


def raise_layers(
    places: Sequence[int],
    free: Sequence[int],
    settings_by_price: Sequence[RoundingSetting],
    rounded: Callable[[Sequence[int]], ir.Model],
    loss: Loss,
    tolerance: float,
    data: Mapping[str, np.ndarray],
    context: Context,
) -> list[int]:
    """Raise the layer that gains most for its price, again and again, until the loss is within bounds.

    It ends too where no raise brings enough, or the circuit would not be cheap any more: a network of few
    bootstraps can afford wide tables.

    Args:
        places: For each table its place in ``settings_by_price``.
        free: The tables that may change.
        settings_by_price: Settings in order of their price.
        rounded: The model at given places.
        loss: What there is to lose.
        tolerance: Mean squared error over the variance of the outputs.
        data: Calibration inputs.
        context: For the noise.
    """
    best, now = list(places), rounded(places)  # priced first: what costs too much already stays as it is
    price = estimate(now).complexity
    if price > AFFORDABLE_OPERATIONS:
        return best
    excess = loss.excess(now, data, tolerance, context)
    # What a layer was last worth bounds what it is worth now, as a rule: few are tried again in each round.
    worth = dict.fromkeys(free, np.inf)
    while excess > 1:
        found: tuple[float, list[int], float, float] | None = None
        for index in sorted(free, key=lambda i: -worth[i]):
            if found is not None and worth[index] <= found[0]:
                break
            worth[index] = -np.inf
            tried = _raised(best, index, settings_by_price)
            if tried == best:
                continue
            model = rounded(tried)
            cost, left = estimate(model).complexity, loss.excess(model, data, tolerance, context)
            wanted = min(RAISE_LOSS_SHARE, (price / cost) ** RAISE_PRICE_EXPONENT) * excess
            if cost <= AFFORDABLE_OPERATIONS and left <= wanted:
                worth[index] = (excess - left) / max(cost - price, 0.01 * price)
                if found is None or worth[index] > found[0]:
                    found = worth[index], tried, left, cost
        if found is None:
            break
        _, best, excess, price = found
    return best


def _raised(places: Sequence[int], index: int, settings_by_price: Sequence[RoundingSetting]) -> list[int]:
    """One layer a bit up, at the same fill; unchanged where there are no more."""
    now = settings_by_price[places[index]]
    higher = [p for p, s in enumerate(settings_by_price) if s == RoundingSetting(now.bits + 1, now.fill)]
    return [higher[0] if i == index and higher else p for i, p in enumerate(places)]
