"""The elements that come through the maxima behind a tensor: its quantizer is fitted to those alone.

The largest of quantized elements is the quantized largest, for rounding keeps their order. So what loses
never matters, and 15 steps need not reach down to it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.scaling import SAME_SCALE, carried
from ...analysis.regions.regions import Regions
from ...ir.graph import MAXIMA
from ...ir.movement import CANDIDATES

_Reached = tuple[ir.Value, list[ir.Node]]


def survivors(value: ir.Value, regions: Regions, by_channel: bool = False) -> list[ir.Value]:
    """The tensors in which ``value`` is read as it is, behind the maxima that it meets first.

    Args:
        value: A tensor that gets a quantizer.
        regions: Regions of the model.
        by_channel: Each entry of axis 1 must still be there by itself.

    Returns:
        ``[value]`` where something else than a maximum reads it too.
    """
    if value not in regions.operands:
        return [value]
    server, found = set(regions.server), dict[ir.Value, None]()
    # Each tensor with what lies between, and the same for the last maximum before it: moves change nothing.
    pending: list[tuple[_Reached, _Reached]] = [((value, []), (value, []))]
    while pending:
        (current, path), last = pending.pop()
        readers = list(dict.fromkeys(current.consumers()))
        goes_on = readers and not current.is_graph_output()
        if goes_on and all(r in server and r.op_type in MAXIMA | CANDIDATES for r in readers):
            for reader in readers:
                reached = reader.outputs[0], [*path, reader]
                pending.append((reached, reached if reader.op_type in MAXIMA else last))
        elif by_channel and last[1] and not _keeps_channels(value, *last):
            return [value]
        else:
            found[last[0]] = None
    return list(found)


def _keeps_channels(value: ir.Value, last: ir.Value, path: list[ir.Node]) -> bool:
    if value.shape is None or last.shape is None or list(value.shape)[1:2] != list(last.shape)[1:2]:
        return False
    units = np.arange(1.0, int(value.shape[1]) + 1)  # type: ignore[arg-type]
    found = carried(path, value, units.reshape([1, -1] + [1] * (len(value.shape) - 2)))
    if found is None:
        return False
    wanted = units.reshape([1, -1] + [1] * (found.ndim - 2))
    return bool(np.allclose(found, wanted, rtol=SAME_SCALE))
