"""``insert-rounding{bits=auto}``: the fewest bits for each table that keep the outputs within a tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..analysis.divergence import output_error, outputs
from ..base import Context

if TYPE_CHECKING:
    from ..insert_rounding import InsertRounding

FEWEST = 2


def choose_bits(
    model: ir.Model,
    data: Mapping[str, np.ndarray],
    tables: Sequence[ir.Node],
    fixed: Mapping[ir.Node, int | None],
    options: InsertRounding,
    context: Context,
) -> list[int]:
    """First one width for all tables, then each layer, the dearest first, down while the tolerance allows.

    Args:
        model: Integer level; not changed.
        data: Calibration inputs.
        tables: Its TableLookup nodes.
        fixed: Bits that the user gave.
        options: The pass.
        context: For progress and notes.

    Returns:
        Bits for each of ``tables``.
    """
    wanted = outputs(model, data)
    names = [t.name for t in tables]
    steps, done = options.most - FEWEST + 1 + len(tables), 0

    def error_of(bits: Sequence[int]) -> float:
        nonlocal done
        context.progress("choose rounding", min(done, steps), steps)
        done += 1
        tried = model.clone()
        by_name = {n.name: n for n in tried.graph}
        options.round(tried, data, {by_name[n]: b for n, b in zip(names, bits, strict=True)}, context)
        return output_error(outputs(tried, data), wanted)

    def all_at(width: int) -> list[int]:
        return [width if (given := fixed[t]) is None else given for t in tables]

    bits, error = all_at(options.most), None
    for width in range(FEWEST, options.most + 1):
        bits = all_at(width)
        error = error_of(bits)
        if error <= options.tolerance:
            break
    else:
        context.notes.append(
            f"insert-rounding: {options.most} bits leave an output error of {error:.2%} of the variance, more than the"
            f" tolerance of {options.tolerance:.2%}; raise `most` if accuracy suffers (tables then cost several times more)"
        )
        return bits
    sizes = [int(np.prod([d for d in list(t.outputs[0].shape or [])[1:] if isinstance(d, int)])) for t in tables]
    for index in sorted(range(len(tables)), key=lambda i: -sizes[i]):
        if fixed[tables[index]] is None and bits[index] > FEWEST:
            tried = [b - 1 if i == index else b for i, b in enumerate(bits)]
            if (now := error_of(tried)) <= options.tolerance:
                bits, error = tried, now
    context.notes.append(
        f"insert-rounding: {', '.join(map(str, bits))} bits reach the tables; rounding leaves an output error of {error:.2%}"
    )
    return bits
