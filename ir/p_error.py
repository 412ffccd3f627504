"""The tolerated error of table lookups that a model records: an attribute of each TableLookup.

An attribute of 0, or none, leaves it to whoever makes the circuit.
"""

from __future__ import annotations

import onnx_ir as ir

from .ops import TableLookup
from .state import ModelState

DEFAULT_P_ERROR = 1e-5
"""Tolerated error per lookup, where neither the model nor the user sets one."""


def recorded(model: ir.Model) -> dict[str, float]:
    """The p_error that lookups of an integer-level model record, by the name of the TableLookup."""
    return {t.name: t.p_error for t in TableLookup.all_in(model) if t.p_error is not None}


def circuit_p_error(model: ir.Model, otherwise: float) -> float:
    """The error that holds for every lookup of a circuit with one setting: the smallest.

    Args:
        model: Integer level.
        otherwise: Tolerated error of lookups that record none.
    """
    found, _ = tolerated(model, otherwise, None)
    return otherwise if found is None else found


def tolerated(
    model: ir.Model, p_error: float | None, global_p_error: float | None, default: float | None = None
) -> tuple[float | None, float | None]:
    """The errors of one lookup and of the whole circuit that a circuit is to be made with.

    What the model says goes before what is given; of lookups that say different things the smallest counts.

    Args:
        model: Integer level.
        p_error: Tolerated error of lookups that record none.
        global_p_error: Tolerated error of the whole circuit, where the model records none.
        default: Tolerated error of lookups, where neither the model nor what is given sets one.
    """
    whole = ModelState.of(model).global_p_error or global_p_error
    if p_error is None and whole is None:
        p_error = default
    errors = [t.p_error or p_error for t in TableLookup.all_in(model)] or [p_error]
    return min((p for p in errors if p is not None), default=None), whole


def notes(model: ir.Model) -> list[str]:
    """What to say about a model whose lookups ask for different errors."""
    errors = [t.p_error for t in TableLookup.all_in(model)]
    known = sorted({p for p in errors if p is not None})
    if not known or (len(known) == 1 and None not in errors):
        return []
    others = " and the usual one" if None in errors else ""
    listed = ", ".join(f"{p:g}" for p in known)
    return [
        f"lookups tolerate different errors ({listed}{others}); Concrete takes one for the whole circuit,"
        " the smallest"
    ]
