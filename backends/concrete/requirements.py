"""What Concrete takes, checked before it is asked, and what to say when it still finds no parameters."""

from __future__ import annotations

import re
from itertools import pairwise

import onnx_ir as ir

from ...analysis.widths.groups import Group, groups
from ...ir.errors import LimitError, OnnxFheError
from ...ir.graph import layer_of, title_of
from ...ir.limits import TargetLimits
from ...ir.ops import Encrypt, TableLookup, decrypts_by_output
from .emit import emission_of
from .plan import Plan

WIDTH_ADVICE = "use fewer weight or activation bits, or prune"
"""What to do about tables or accumulators that are too wide."""
MAX_QUOTED_CHARACTERS = 200
"""Characters of Concrete's own message that are passed on."""


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
    for decrypt in decrypts_by_output(plan.server):
        if decrypt.bits > limits.output_bits:
            name, op = title_of(layer_of(decrypt.output) or decrypt.node)
            raise LimitError(
                "an output is too wide",
                found=f"{decrypt.bits} bits ({decrypt.low} .. {decrypt.high})",
                allowed=f"{limits.output_bits} bits",
                do="use fewer weight or activation bits in the last layer, or prune it",
                node=name,
                op=op,
            )
    for group in groups(plan.server):
        _check_group(plan, group, limits)


def _check_group(plan: Plan, group: Group, limits: TargetLimits) -> None:
    """Refuse a table whose input Concrete makes too wide because of what it meets."""
    if group.bits <= limits.table_bits:
        return
    for lookup in plan.lookups.values():
        if lookup.source in group.values and not lookup.lsbs_to_remove:
            name, op = lookup.title
            raise LimitError(
                "a table shares its width with wider values",
                found=f"{group.bits} bits instead of {lookup.accumulator_bits}, the width of"
                f" {_asks(group.widest)}: values that meet between two tables are all as wide as the widest",
                allowed=f"{limits.table_bits} bits",
                do=WIDTH_ADVICE,
                node=name,
                op=op,
            )


def _asks(node: ir.Node | None) -> str:
    """Who asks for the width of a group, in words."""
    if node is None:
        return "another value"
    if (encrypt := Encrypt.match(node)) is not None:
        return f"the input {encrypt.input.name!r}"
    lookup = TableLookup.match(node)
    name, op = lookup.title if lookup is not None else title_of(layer_of(node.inputs[0]) or node)
    return f"{name!r} ({op})"


def _check_lookup(lookup: TableLookup, limits: TargetLimits) -> None:
    where = dict(zip(("node", "op"), lookup.title, strict=True))
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


def refused(plan: Plan, message: str, p_error: float | None) -> OnnxFheError:
    """The error for a circuit that Concrete refuses, in a few lines that name a node.

    Args:
        plan: What was to be compiled.
        message: Concrete's own words: a name of an error, or a page of graph with notes in it.
        p_error: Tolerated error of one lookup.
    """
    if "NoParametersFound" in message:
        name, op, found = _widest(plan)
        return LimitError(
            "Concrete finds no parameters for this circuit",
            found=f"{found}, with p_error {p_error}",
            do=f"give insert-rounding fewer bits, {WIDTH_ADVICE}, or allow a larger p_error",
            node=name,
            op=op,
        )
    notes = [re.sub(r"^.*\^\^+\s*", "", x) for x in message.splitlines() if "^^^" in x]
    if notes:
        name, op = _named(plan, message) or _widest(plan)[:2]
        return LimitError(
            "Concrete does not compute this node",
            found="; ".join(notes),
            do=WIDTH_ADVICE,
            node=name,
            op=op,
        )
    name, op, found = _widest(plan)
    first = next((x.strip() for x in message.splitlines() if x.strip()), "no reason given")
    return OnnxFheError(
        "Concrete fails on this circuit",
        found=f"{first[:MAX_QUOTED_CHARACTERS]} ({found})",
        do=f"give insert-rounding fewer bits, or {WIDTH_ADVICE}; if that does not help, report this",
        node=name,
        op=op,
    )


def _named(plan: Plan, message: str) -> tuple[str, str] | None:
    """The node that Concrete's notes stand under, by the tags of the lines above them."""
    lines, tags = message.splitlines(), {plan.tag(n): n for n in plan.server.graph}
    for above, below in pairwise(lines):
        tag = re.search(r"@ (n\d+)", above)
        if "^^^" in below and tag is not None and tag[1] in tags:
            node = tags[tag[1]]
            lookup = TableLookup.match(node)
            return lookup.title if lookup is not None else title_of(node)
    return None


def _widest(plan: Plan) -> tuple[str, str, str]:
    """The layer with the widest table, or output: its name and operator, and how wide that is."""
    widest = max(plan.lookups.values(), key=lambda x: (x.table_bits, x.accumulator_bits), default=None)
    if widest is not None:
        bits = (
            f"the widest table takes {widest.table_bits} bits of an accumulator of {widest.accumulator_bits}"
        )
        return *widest.title, f"the widest table takes {bits}"
    output = max(decrypts_by_output(plan.server), key=lambda d: d.bits)
    name, op = title_of(layer_of(output.input) or output.node)
    return name, op, f"the widest output takes {output.bits} bits"
