"""What layers cost, one entry for each."""

from __future__ import annotations

from .statistics import LayerStatistics


def merge_layers(layers: list[LayerStatistics]) -> list[LayerStatistics]:
    """Layers of the same name as one: bootstraps add up, the widest widths hold."""
    merged: dict[str, LayerStatistics] = {}
    for new in layers:
        old = merged.get(new.name)
        merged[new.name] = (
            new
            if old is None
            else LayerStatistics(
                new.name,
                new.operator,
                max(old.accumulator_bits, new.accumulator_bits),
                max(old.table_bits, new.table_bits),
                old.programmable_bootstraps + new.programmable_bootstraps,
            )
        )
    return list(merged.values())
