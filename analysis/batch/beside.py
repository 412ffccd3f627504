"""Finds out, node by node, whether several samples at once are computed as each is alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.graph import constant_of, variable_inputs
from ...ir.probing import NodeProber


class SampleBySampleProbe(NodeProber[bool]):
    """Answers whether a node computes several samples at once as it computes each alone."""

    def __call__(self, node: ir.Node) -> bool:
        """Whether a node that reads and gives one entry along first axes takes several samples there as well.

        It is run on two, together and one by one.
        """
        variable, results = variable_inputs(node), [o for o in node.outputs if o.name]
        known = {v: shapes.static_of(v) for v in (*variable, *results)}
        # Without another axis there would be nothing for the encrypted part to work on.
        if any(not s or s[0] != 1 or len(s) < 2 for s in known.values()):
            return False
        if any(v.dtype is None for v in variable):
            return False
        return bool(self.ask(node, variable, lambda: self._probe(node, variable, results)))

    def _probe(self, node: ir.Node, variable: list[ir.Value], results: list[ir.Value]) -> bool:
        random = np.random.default_rng(0)
        both = {v: _random(random, [2, *(shapes.static_of(v) or [])[1:]], v) for v in variable}
        runs = [both, *({v: a[i : i + 1] for v, a in both.items()} for i in range(2))]
        together, *apart = self.run(node, runs, results)
        return all(
            _close(found, np.concatenate(parts)) for found, *parts in zip(together, *apart, strict=True)
        )


def _close(found: np.ndarray, wanted: np.ndarray) -> bool:
    if found.shape != wanted.shape:
        return False
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, wanted))
    return bool(np.allclose(found, wanted, rtol=1e-4, atol=1e-6 * _largest(wanted), equal_nan=True))


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


def _random(random: np.random.Generator, shape: list[int], value: ir.Value) -> np.ndarray:
    assert value.dtype is not None
    kind = value.dtype.numpy()
    array = random.normal(size=shape) if kind.kind == "f" else random.integers(0, 2, shape)
    return array.astype(kind)


def depends(value: ir.Value | None) -> bool:
    """Whether a value is computed from an input."""
    if value is None or constant_of(value) is not None:
        return False
    node = value.producer()
    return node is None or bool(variable_inputs(node))
