"""Whether several samples side by side give what each gives alone, node by node."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir import runtime, shapes
from ...ir.graph import constant_of, variable_inputs


def is_sample_by_sample(node: ir.Node, opset: int) -> bool:
    """Whether a node that reads and gives one entry along first axes takes several samples there as well.

    It is run on two, together and one by one.
    """
    variable, results = variable_inputs(node), [o for o in node.outputs if o.name]
    known = {v: shapes.static_of(v) for v in (*variable, *results)}
    # Without another axis there would be nothing for the encrypted part to work on.
    if any(not s or s[0] != 1 or len(s) < 2 for s in known.values()) or any(
        v.dtype is None for v in variable
    ):
        return False
    random = np.random.default_rng(0)
    both = {v: _random(random, [2, *(known[v] or [])[1:]], v) for v in variable}
    runs = [both, *({v: a[i : i + 1] for v, a in both.items()} for i in range(2))]
    try:
        together, *apart = runtime.run_nodes_often([node], runs, results, opset)
    except Exception:  # noqa: BLE001 - what cannot be run on two samples does not treat them alike
        return False
    for found, *parts in zip(together, *apart, strict=True):
        wanted = np.concatenate(parts)
        if found.shape != wanted.shape:
            return False
        if found.dtype.kind != "f":
            if not np.array_equal(found, wanted):
                return False
        elif not np.allclose(found, wanted, rtol=1e-4, atol=1e-6 * _largest(wanted), equal_nan=True):
            return False
    return True


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


def _random(random: np.random.Generator, shape: list[int], value: ir.Value) -> np.ndarray:
    assert value.dtype is not None
    kind = value.dtype.numpy()
    array = random.normal(size=shape) if kind.kind == "f" else random.integers(0, 2, shape)
    return array.astype(kind)


def depends(value: ir.Value | None) -> bool:
    """Whether a value is computed of an input."""
    if value is None or constant_of(value) is not None:
        return False
    node = value.producer()
    return node is None or bool(variable_inputs(node))
