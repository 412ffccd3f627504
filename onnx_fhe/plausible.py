"""Whether the numbers of a manifest can be true at all: hashes say nothing about what was hashed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from .ir.errors import ArtifactError
from .ir.results import is_plausible

SECURITY_BITS = (128, 256)
"""Bits of security that a circuit may have."""

_SIGNED = frozenset({"low", "high", "r2", "robust_r2", "worst_r2", "kappa", "lost"})
"""Fields that may be negative."""
_SHARES = frozenset({"agreement", "accuracy", "network_accuracy", "same"})
"""Fields that lie between 0 and 1."""
_COUNTS_FROM_ONE = frozenset(
    {"polynomial_size", "glwe_dimension", "input_lwe_dimension", "level", "base_log"}
    | {"input_dimension", "output_dimension"}
)
_MAX_BITS = 64
"""Largest bit width that an artifact may claim: integers are computed in int64."""
_MAX_COUNT = 2**62
"""Largest count that an artifact may claim: what an int64 holds, with room for a sum."""


def check(manifest: Any) -> None:
    """Look at every number of a manifest.

    Raises:
        ArtifactError: One is impossible; it is named by its place.
    """
    _walk(manifest, "")
    for name in ("p_error", "global_p_error"):
        value = getattr(manifest, name)
        if value is not None and not 0 < value < 1:
            raise _impossible(name, value, "between 0 and 1")
    if not is_plausible(manifest.results, manifest.p_error):
        raise _impossible("p_error", manifest.p_error, "up to 2^-64 where results are shared")
    if not SECURITY_BITS[0] <= manifest.security_level <= SECURITY_BITS[1]:
        raise _impossible(
            "security_level", manifest.security_level, f"{SECURITY_BITS[0]} to {SECURITY_BITS[1]} bits"
        )


def _walk(value: Any, place: str) -> None:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _walk(getattr(value, field.name), f"{place}.{field.name}" if place else field.name)
        if hasattr(value, "low") and hasattr(value, "high") and value.low > value.high:
            raise _impossible(f"{place}.low", value.low, f"at most high, {value.high}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _walk(inner, f"{place}.{key}")
    elif isinstance(value, (tuple, list)):
        for i, inner in enumerate(value):
            _walk(inner, f"{place}.{i}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _number(value, place)


def _number(value: float, place: str) -> None:
    # Elements of a list go by the name of the list.
    name = next((p for p in reversed(place.split(".")) if not p.isdecimal()), "")
    if not math.isfinite(value) or (abs(value) > _MAX_COUNT and isinstance(value, int)):
        raise _impossible(place, value, "a number")
    if value < 0 and name not in _SIGNED:
        raise _impossible(place, value, "0 or more")
    if name in _SHARES | {"p_error", "global_p_error"} and value > 1:
        raise _impossible(place, value, "at most 1")
    if name in _COUNTS_FROM_ONE and value < 1:
        raise _impossible(place, value, "1 or more")
    if name.endswith("_bits") and value > _MAX_BITS:
        raise _impossible(place, value, f"at most {_MAX_BITS}")


def _impossible(place: str, value: object, allowed: str) -> ArtifactError:
    return ArtifactError(
        "the manifest is damaged: it holds a number that cannot be",
        found=f"{place}: {value}",
        allowed=allowed,
        do="copy the file again if it came over a network, or compile the model again",
    )
