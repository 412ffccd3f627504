"""How much accuracy a circuit loses, from how often its class is another than the float network's.

Where both give the same class nothing is lost, so only inputs where they differ matter, and those are counted
without labels: on validation and calibration inputs alike. What such an input costs the network's own
probabilities foresee: that of its class less that of the circuit's. Networks are surer than they are right
(Guo et al. 2017, "On Calibration of Modern Neural Networks"), so a share of that is lost, which is learned
from the labelled inputs of all points. A point's own labels are the second estimate; each counts by its
variance. Labels alone choose badly: the point that wins among many was lucky with them, and 200 of them tell
a loss to two or three points only. Where a network has no probabilities the cost is learned from labels: the
share of the differing inputs where the network was right and the circuit is not, less the reverse (a ratio
estimate: Cochran 1977, "Sampling Techniques", ch. 6).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from .points import Paired, Point

PRIOR_INPUTS = 4.0
"""Differing inputs that count as much as what was learned from other points: a weak prior, for points of one
search differ on many of the same inputs."""
PRIOR_LOSS = 0.5
"""What such an input costs while nothing is known: half-way between nothing and a right answer."""
PRIOR_LOSS_SHARE = 0.8
"""Share of what probabilities foresee that is lost while nothing is known (on two tabular networks 0.72 to
0.85 and 0.3 to 0.76 of it were lost, by point of the search)."""
PRIOR_SHARE_INPUTS = 30.0
"""Differing inputs that this share counts as."""
SHARE_STANDARD_ERROR = 0.35
"""Standard error of that share, relative."""


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

    _cost: float = PRIOR_LOSS
    _share: float = PRIOR_LOSS_SHARE
    _ratios: dict[bool, float] = field(default_factory=dict)

    def learn(self, points: Iterable[Point]) -> None:
        """Look at all points again."""
        known = [(_is_trained(p), p.paired) for p in points if p.paired is not None]
        lost, counted = sum(p.lost for _, p in known), sum(p.validation_differing for _, p in known)
        self._cost = min(1.0, max(0.0, (lost + PRIOR_INPUTS * PRIOR_LOSS) / (counted + PRIOR_INPUTS)))
        self._share = _share([p for _, p in known if p.has_labels])
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
        if not found.has_labels:
            return Loss(rate, math.sqrt(of_rate))
        if found.validation_foreseen is None or found.foreseen is None:
            weight = found.validation_differing + PRIOR_INPUTS
            cost = min(1.0, max(0.0, (found.lost + PRIOR_INPUTS * self._cost) / weight))
            of_cost = (1.0 - cost * cost) / weight
            return Loss(rate * cost, math.sqrt(cost * cost * of_rate + rate * rate * of_cost))
        foreseen = self._share * (found.validation_foreseen + found.foreseen) / samples
        cost = foreseen / rate if rate else self._cost
        first = foreseen, cost * cost * of_rate + (SHARE_STANDARD_ERROR * foreseen) ** 2
        second = (
            found.lost / found.validation,
            (found.validation_differing + 1.0) / found.validation**2,
        )
        weights = [1 / variance for _, variance in (first, second)]
        value = (first[0] * weights[0] + second[0] * weights[1]) / sum(weights)
        return Loss(min(rate, max(0.0, value)), math.sqrt(1 / sum(weights)))


def _is_trained(point: Point) -> bool:
    return bool(point.parameters.get("distill"))


def _ratio(known: list[Paired]) -> float:
    """How much more often classes differ on validation than on calibration inputs; at least 1."""
    new = (1 + sum(p.validation_differing for p in known)) / (1 + sum(p.validation for p in known))
    seen = [p for p in known if p.calibration]
    old = (1 + sum(p.differing for p in seen)) / (1 + sum(p.calibration for p in seen))
    return max(1.0, new / old) if seen else 1.0


def _share(known: list[Paired]) -> float:
    """Share of what probabilities foresee that is lost. All points are asked of the same labelled inputs, so
    that they know as much together as the one that differs most.
    """
    known = [p for p in known if p.validation_foreseen is not None]
    foreseen = sum(p.validation_foreseen or 0.0 for p in known)
    if foreseen <= 0:
        return PRIOR_LOSS_SHARE
    counted = max(p.validation_differing for p in known)
    seen = min(1.0, max(0.0, sum(p.lost for p in known) / foreseen))
    return (counted * seen + PRIOR_SHARE_INPUTS * PRIOR_LOSS_SHARE) / (counted + PRIOR_SHARE_INPUTS)
