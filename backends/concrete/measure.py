"""What a compiled circuit costs, by the names that the user knows."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from ...analysis.widths.groups import MAX_NARROWED_BITS
from ...ir.graph import layer_of, title_of
from ...ir.ops import TableLookup, decrypts_by_output
from ..layers import merge_layers
from ..statistics import CircuitStatistics, LayerStatistics
from .compiling import Compiled
from .parameters import products_of, steps_of
from .plan import Plan


def statistics(plan: Plan, compiled: Compiled) -> CircuitStatistics:
    """Everything that the parts of Concrete know about ``compiled``."""
    circuit = compiled.circuit
    layers = merge_layers(_layers(plan, compiled))
    widths = [x.accumulator_bits for x in layers]
    return CircuitStatistics(
        programmable_bootstraps=int(circuit.programmable_bootstrap_count),
        complexity=float(circuit.complexity),
        max_table_bits=max((x.table_bits for x in layers), default=0),
        max_accumulator_bits=int(
            circuit.graph.maximum_integer_bit_width(is_encrypted_filter=True, assigned_bit_width=True)
        ),
        mean_accumulator_bits=fmean(widths) if widths else 0.0,
        p_error=float(circuit.server.p_error),
        global_p_error=_share(circuit.server.global_p_error),
        layers=tuple(layers),
        evaluation_key_bytes=int(circuit.size_of_bootstrap_keys + circuit.size_of_keyswitch_keys),
        secret_key_bytes=int(circuit.size_of_secret_keys),
        input_bytes=int(circuit.size_of_inputs),
        output_bytes=int(circuit.size_of_outputs),
        parameter_sets=len(circuit.programmable_bootstrap_count_per_parameter),
        steps=steps_of(circuit.server),
        linear_products=products_of(circuit.server),
    )


def _layers(plan: Plan, compiled: Compiled) -> list[LayerStatistics]:
    counts = compiled.circuit.programmable_bootstrap_count_per_tag
    scope = compiled.emitter.scope
    layers = []
    for node in plan.server.graph:
        lookup = plan.lookups.get(node)
        if lookup is None:
            continue
        name, operator = lookup.title
        width = _width(scope.indexes[node])
        layers.append(
            LayerStatistics(
                name=name,
                operator=operator,
                accumulator_bits=width,
                table_bits=_table_bits(lookup, width),
                programmable_bootstraps=int(counts.get(plan.tag(node), 0)),
            )
        )
    for decrypt in decrypts_by_output(plan.server):
        if (linear := layer_of(decrypt.input)) is not None:
            width = _width(scope.values[decrypt.input])
            layers.append(LayerStatistics(*title_of(linear), width, 0, 0))
    return _in_order(plan, layers)


def _in_order(plan: Plan, layers: list[LayerStatistics]) -> list[LayerStatistics]:
    order: dict[str, int] = {}
    for i, node in enumerate(plan.server.graph):
        order.setdefault(title_of(node)[0], i)
    return sorted(layers, key=lambda x: order[x.name])


def _width(value: Any) -> int:
    """Bits that Concrete assigned to a traced value; a value alone may need less than its group has."""
    return int(value.computation.output.dtype.bit_width)


def _table_bits(lookup: TableLookup, width: int) -> int:
    if lookup.lsbs_to_remove or lookup.accumulator_bits <= MAX_NARROWED_BITS:
        return lookup.table_bits
    return width


def _share(value: float) -> float | None:
    return float(value) if 0.0 < value < 1.0 else None
