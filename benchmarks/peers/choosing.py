"""Which settings are worth simulating, and which of them is the best: no processes here, only figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .settings import Setting

Figures = Mapping[str, Any]

HOPELESS = 3.0
"""Standard errors that an accuracy may lie below what is wanted before the setting is dropped."""

CLOSE = 1.3
"""Complexity misranks circuits at times: those within this factor of the cheapest are measured."""

EQUAL = 1.05
"""Factor within which two circuits are equally fast: what measuring tells apart."""


def hopeless(accuracy: float, wanted: float, samples: int) -> bool:
    """Whether an accuracy on so many samples shows that what is wanted will not be reached."""
    error = math.sqrt(max(wanted * (1 - wanted), 1e-4) / samples)
    return accuracy < wanted - HOPELESS * error


def by_cost(figures: Mapping[Setting, Figures]) -> list[Setting]:
    """The settings that compiled, cheapest first."""
    made = [s for s, f in figures.items() if "complexity" in f]
    return sorted(made, key=lambda s: (figures[s]["complexity"], s.n_bits))


def finalists(figures: Mapping[Setting, Figures], wanted: float) -> list[Setting]:
    """The cheapest setting that is accurate enough on the validation samples, and those close to its cost.

    Where none is, the most accurate one, the cheaper of two.
    """
    scored = [s for s in by_cost(figures) if "simulated" in figures[s]]
    good = [s for s in scored if figures[s]["simulated"] >= wanted]
    if good:
        least = figures[good[0]]["complexity"]
        return [s for s in good if figures[s]["complexity"] <= CLOSE * least]
    return sorted(scored, key=lambda s: -figures[s]["simulated"])[:1]  # stable: cheapest first


def best(figures: Mapping[Setting, Figures], candidates: Iterable[Setting]) -> Setting:
    """The fastest candidate by processor seconds on ciphertexts; where one has none, by complexity.

    Of those that are as good as equally fast the most accurate one.
    """
    found = list(candidates)
    ran = all(figures[s].get("encrypted") for s in found)
    costs = {
        s: figures[s]["encrypted"]["processor_seconds"] if ran else figures[s]["complexity"] for s in found
    }
    fastest = [s for s in found if costs[s] <= EQUAL * min(costs.values())]
    return max(fastest, key=lambda s: figures[s]["simulated"])
