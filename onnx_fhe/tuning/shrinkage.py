"""What scores are worth on other samples: the best of many is a little lucky.

Networks of one size that were trained a little differently score like draws around one mean. As far as they
differ no more than the validation samples explain, the best of them is no better than the others, and its
score is drawn towards their mean (empirical Bayes: Efron & Morris 1975, "Data analysis using Stein's
estimator"). But what is hard among these samples is hard for all of them: that part of the error they share,
and no mean does away with it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, variance

from .points import Point

MIN_SHARED_VARIANCE = 0.5
"""Least share of the variance of scores that networks of one size have in common. Where they differ in
nothing that matters it shows, and was half and more (mnist_mlp, digits_mlp); what matters hides it."""
MIN_NETWORKS = 3
"""Networks of a size that show how much scores of that size vary by chance."""

Size = tuple[object, ...]
PointsByNetwork = dict[str, list[Point]]
"""Points of one size by network: they differ in the tolerated error alone."""


@dataclass(frozen=True)
class Correction:
    """What is to be made of a score.

    Attributes:
        shift: To add to it.
        error: What it may still be off by (a standard error); None where the metric has none.
    """

    shift: float
    error: float | None


@dataclass
class ScoreShrinkage:
    """Knows the points so far."""

    _corrections: dict[int, Correction] = field(default_factory=dict)
    _networks: dict[Size, int] = field(default_factory=dict)

    def learn(self, points: Iterable[Point]) -> None:
        """Look at all points again."""
        by_size: dict[Size, PointsByNetwork] = defaultdict(lambda: defaultdict(list))
        for point in points:
            by_size[_size(point)][_network(point)].append(point)
        self._networks = {size: len(found) for size, found in by_size.items()}
        self._corrections = {n: c for found in by_size.values() for n, c in _corrections(found).items()}

    def correction(self, point: Point) -> Correction:
        """For the score of a point; nothing is known of one that was not learned."""
        return self._corrections.get(point.number, Correction(0.0, point.score_error))

    def is_alone(self, point: Point) -> bool:
        """Whether too few networks of this size were tried to tell chance from worth."""
        return point.score_error is not None and self._networks.get(_size(point), 0) < MIN_NETWORKS


def _corrections(found: PointsByNetwork) -> dict[int, Correction]:
    points = [p for alike in found.values() for p in alike]
    errors = [p.score_error for p in points if p.score_error is not None]
    if len(found) < MIN_NETWORKS or not any(errors):
        return {}
    chance = fmean(e * e for e in errors)
    scores = {network: fmean(p.score for p in alike) for network, alike in found.items()}
    mean, seen = fmean(scores.values()), variance(scores.values())
    # What is seen of differences is chance, and their worth if it is more; if it is less, the rest is shared.
    shared = max(MIN_SHARED_VARIANCE * chance, chance - seen)
    own = chance - shared
    worth = 1 - own / seen if seen else 0.0
    error = math.sqrt(shared + worth * own + (1 - worth) ** 2 * own / len(scores))
    return {
        p.number: Correction((1 - worth) * (mean - scores[network]), error)
        for network, alike in found.items()
        for p in alike
    }


def _size(point: Point) -> Size:
    chosen = point.parameters
    return (*(chosen.get(n) for n in ("layers", "neurons", "rounding")), bool(chosen.get("distill")))


def _network(point: Point) -> str:
    return repr(sorted((k, v) for k, v in point.parameters.items() if k != "p_error"))
