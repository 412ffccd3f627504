"""How much accuracy a circuit loses, from how often its class is another than the float network's.

Where both give the same class nothing is lost, so only inputs where they differ matter, and those are counted
without labels: on validation and calibration inputs alike. What such an input costs is learned from the
labelled ones: the share of them where the network was right and the circuit is not, less the reverse. The
loss is the product of the two (a ratio estimate: Cochran 1977, "Sampling Techniques", ch. 6). Its error is
smaller than that of two accuracies, which holds what both get wrong and knows the few labelled inputs alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from .points import Paired, Point

WEIGHT, COST = 4.0, 0.5
"""Differing inputs that count as much as what was learned from other points, a weak prior, for points of one
search differ on many of the same inputs; and what such an input costs while nothing is known: half-way
between nothing and a right answer."""


@dataclass(frozen=True)
class Loss:
    """Of accuracy, against the float network.

    Attributes:
        value: Expected loss, 0 or more.
        error: Its standard error.
    """

    value: float
    error: float


@dataclass
class Agreeing:
    """Learns from all points what an input costs where classes differ."""

    _cost: float = COST
    _ratios: dict[bool, float] = field(default_factory=dict)

    def learn(self, points: Iterable[Point]) -> None:
        """Look at all points again."""
        known = [(_is_trained(p), p.paired) for p in points if p.paired is not None]
        lost, counted = sum(p.lost for _, p in known), sum(p.validation_differing for _, p in known)
        self._cost = min(1.0, max(0.0, (lost + WEIGHT * COST) / (counted + WEIGHT)))
        self._ratios = {kind: _ratio([p for k, p in known if k is kind]) for kind in (False, True)}

    def loss(self, point: Point) -> Loss | None:
        """What a point loses; None where its classes were not compared."""
        found = point.paired
        if found is None:
            return None
        counted = found.differing + found.validation_differing
        # Networks are surer of inputs that they, or their students, were made with: those count for less.
        samples = found.validation + found.calibration / self._ratios.get(_is_trained(point), 1.0)
        rate, of_rate = counted / samples, (counted + 1.0) / samples**2
        cost, of_cost = 1.0, 0.0
        if found.has_labels:
            weight = found.validation_differing + WEIGHT
            cost = min(1.0, max(0.0, (found.lost + WEIGHT * self._cost) / weight))
            of_cost = (1.0 - cost * cost) / weight
        return Loss(rate * cost, math.sqrt(cost * cost * of_rate + rate * rate * of_cost))


def _is_trained(point: Point) -> bool:
    return bool(point.parameters.get("distill"))


def _ratio(known: list[Paired]) -> float:
    """How much more often classes differ on validation than on calibration inputs; at least 1."""
    new = (1 + sum(p.validation_differing for p in known)) / (1 + sum(p.validation for p in known))
    seen = [p for p in known if p.calibration]
    old = (1 + sum(p.differing for p in seen)) / (1 + sum(p.calibration for p in seen))
    return max(1.0, new / old) if seen else 1.0
