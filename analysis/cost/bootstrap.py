"""What one bootstrap costs and with which parameters: asked of Concrete's optimizer beforehand.

``optimizer.json`` holds its answers for 128 bits of security (``benchmarks/optimizer_table.py`` writes it).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from ...ir.p_error import DEFAULT_P_ERROR
from .parameters import BootstrapParameters, KeyswitchParameters

MAX_MEASURED_TABLE_BITS = 8
"""Bits of the widest table that Concrete's optimizer was asked about; wider ones are extrapolated."""
COST_GROWTH_PER_BIT = 2.0
"""Factor of the complexity for each bit past ``MAX_MEASURED_TABLE_BITS``."""
MAX_COST_GROWTH = 6.0
"""Largest factor for all such bits together: past 11 bits Concrete computes a table in another way."""
EXTRACTION_MEGAOPS = 65.0
"""Complexity (millions of operations) of each bit that exact rounding removes from one element."""


@dataclass(frozen=True)
class Bootstrap:
    """One bootstrap.

    Attributes:
        complexity: Operations, by Concrete's count.
        parameters: Parameters of the bootstrapping key.
        keyswitch: Parameters of the key switch in front of it.
    """

    complexity: float
    parameters: BootstrapParameters
    keyswitch: KeyswitchParameters


def bootstrap_of(bits: int, precision: float = 8.0, p_error: float = DEFAULT_P_ERROR) -> Bootstrap:
    """The bootstrap that Concrete chooses.

    Args:
        bits: Bits of the table; past ``MAX_MEASURED_TABLE_BITS`` the complexity is extrapolated, and the
            parameters are those of that width.
        precision: How exact the result has to be, in bits.
        p_error: Tolerated error of one lookup. Between those that the optimizer was asked for, the next
            smaller one counts.
    """
    edges, found = _rows(max(1, min(MAX_MEASURED_TABLE_BITS, bits)), p_error)
    chosen = found[max(0, bisect_right(edges, precision) - 1)]
    wider = min(MAX_COST_GROWTH, COST_GROWTH_PER_BIT ** max(0, bits - MAX_MEASURED_TABLE_BITS))
    return Bootstrap(chosen.complexity * wider, chosen.parameters, chosen.keyswitch)


def allowed_precision(bits: int, precision: float, p_error: float = DEFAULT_P_ERROR) -> float:
    """The most precision that the bootstrap chosen for ``precision`` has: past it Concrete takes another."""
    edges, _ = _rows(max(1, min(MAX_MEASURED_TABLE_BITS, bits)), p_error)
    place = bisect_right(edges, precision)
    return edges[place] if place < len(edges) else precision


def bootstrap_complexity(bits: int, precision: float = 8.0, p_error: float = DEFAULT_P_ERROR) -> float:
    """Operations of one bootstrap; see ``bootstrap_of``."""
    return bootstrap_of(bits, precision, p_error).complexity


@lru_cache(maxsize=1024)
def _rows(bits: int, p_error: float) -> tuple[list[float], list[Bootstrap]]:
    """From which required precision on a bootstrap of that width and error is which."""
    table = _table()
    errors = sorted({p for p, _ in table})
    # A hair of tolerance: 1e-5 is 1e-5 however it was computed.
    place = bisect_right(errors, p_error * (1 + 1e-9)) - 1
    return table[errors[max(0, place)], bits]


@lru_cache(maxsize=1)
def _table() -> dict[tuple[float, int], tuple[list[float], list[Bootstrap]]]:
    content = json.loads(resources.files(__package__).joinpath("optimizer.json").read_bytes())
    table = {}
    for entry in content["table"]:
        edges, found = [-math.inf], []
        for precision, millions, *numbers, level, base_log in entry["rows"]:
            parameters = BootstrapParameters(*numbers)
            keyswitch = KeyswitchParameters(
                parameters.output_dimension, parameters.input_lwe_dimension, level, base_log
            )
            edges.append(precision)
            found.append(Bootstrap(1e6 * millions, parameters, keyswitch))
        # The first row counts below its precision too.
        table[entry["p_error"], entry["bits"]] = (edges[:1] + edges[2:], found)
    return table
