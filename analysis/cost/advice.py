"""What a user should know about where the cost of a network comes from."""

from __future__ import annotations

from collections import defaultdict

import onnx_ir as ir

from ...ir.graph import MAXIMA
from .cost import estimate

DOMINANT_WORK_SHARE = 0.4
"""Share of the estimated work from which on a note says what max-pooling costs."""


def advice(model: ir.Model) -> list[str]:
    """Notes on an integer-level model, tables fused: max-pooling that takes much of the work.

    Args:
        model: Before ``lower-to-lookups``, while max-pooling still is one operator.
    """
    pools = {str(n.name): n for n in model.graph if n.domain == "" and n.op_type in MAXIMA}
    if not pools:
        return []
    work: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for layer in estimate(model).layers:
        work[layer.name] += layer.complexity
        count[layer.name] += layer.bootstraps
    total, found = sum(work.values()), [n for n in pools if n in work]
    spent = sum(work[n] for n in found)
    if not total or spent < DOMINANT_WORK_SHARE * total:
        return []
    return [
        f"{', '.join(found)}: maxima take {sum(count[n] for n in found)} of {sum(count.values())} bootstraps"
        f" and {spent / total:.0%} of the estimated work; average pooling takes none"
    ]
