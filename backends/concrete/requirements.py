"""What Concrete takes, checked before it is asked, and what to say when it still finds no parameters."""

from __future__ import annotations

from ...ir.errors import LimitError
from ...ir.graph import layer_of, title_of
from ...ir.limits import TargetLimits
from ...passes.analysis.layers import layer_of as titled
from ..lookups import Lookup, bits_of, declared_range, marks
from .emit import emission_of
from .plan import Plan


def check(plan: Plan, limits: TargetLimits) -> None:
    """Refuse what cannot be compiled, naming the node.

    Raises:
        UnsupportedError: An operator that Concrete does not have.
        LimitError: A table or an output is too wide.
    """
    for node in plan.server.graph:
        emission_of(node)
    for lookup in plan.lookups.values():
        _check_lookup(lookup, limits)
    for node in marks(plan.server, "Decrypt"):
        low, high = declared_range(node)
        bits = bits_of(low, high)
        if bits > limits.output_bits:
            name, op = title_of(layer_of(node.outputs[0]) or node)
            raise LimitError(
                "an output is too wide",
                found=f"{bits} bits ({low} .. {high})",
                allowed=f"{limits.output_bits} bits",
                do="use fewer weight or activation bits in the last layer, or prune it",
                node=name,
                op=op,
            )


def _check_lookup(lookup: Lookup, limits: TargetLimits) -> None:
    where = dict(zip(("node", "op"), titled(lookup.node), strict=True))
    if not lookup.lsbs_to_remove:
        if lookup.table_bits > limits.table_bits:
            raise LimitError(
                "the input of a table is too wide",
                found=f"{lookup.table_bits} bits",
                allowed=f"{limits.table_bits} bits",
                do="put insert-rounding in the pipeline, use fewer weight or activation bits, or prune",
                **where,
            )
        return
    if lookup.table_bits > limits.rounded_table_bits:
        raise LimitError(
            "rounding leaves too many bits for a table",
            found=f"{lookup.table_bits} bits",
            allowed=f"{limits.rounded_table_bits} bits",
            do="give insert-rounding fewer bits",
            **where,
        )
    if lookup.accumulator_bits > limits.rounded_accumulator_bits:
        raise LimitError(
            "an accumulator is too wide",
            found=f"{lookup.accumulator_bits} bits",
            allowed=f"{limits.rounded_accumulator_bits} bits",
            do="use fewer weight or activation bits, or prune",
            **where,
        )


def no_parameters(plan: Plan, p_error: float | None) -> LimitError:
    """The error for a circuit that Concrete finds no secure parameters for; it names the widest table."""
    widest = max(plan.lookups.values(), key=lambda x: (x.table_bits, x.accumulator_bits), default=None)
    if widest is None:
        return LimitError(
            "Concrete finds no parameters for this circuit", do="use fewer weight or input bits, or prune"
        )
    name, op = titled(widest.node)
    return LimitError(
        "Concrete finds no parameters for this circuit",
        found=f"the widest table takes {widest.table_bits} bits "
        f"of an accumulator of {widest.accumulator_bits}, with p_error {p_error}",
        do="give insert-rounding fewer bits, use fewer weight or activation bits, prune, "
        "or allow a larger p_error",
        node=name,
        op=op,
    )
