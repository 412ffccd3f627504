"""Where a batch is written into a model: its number, and the node that needs all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from ...ir import shapes
from ...ir.batch_runner import Arrays
from ...ir.errors import ModelError, UnsupportedError
from ...ir.graph import constant_of
from ...ir.runtime import Session, skeleton
from ...ir.sampling import random_inputs
from ..regions.refusals import at_fault
from .beside import depends

_MAX_BATCH = 4096
"""Largest batch (samples) that is looked for."""


def settle(model: ir.Model) -> int:
    """Fix the batch of a model that runs with one size of it only, whatever it declares.

    Exporters leave the batch free in the inputs and write it into a Reshape all the same.

    Returns:
        That size: axis 0 of every input is fixed to it then. 0 where there is none.
    """
    inputs = list(model.graph.inputs)
    dims = [shapes.dims_of(i) for i in inputs]
    if not inputs or any(not d or isinstance(d[0], int) for d in dims):
        return 0
    varying = [str(o.name) for o in model.graph.outputs if depends(o)]
    for size in (1, *_numbers(model)):
        found = runs(model, size)
        if found and all(found[name].shape[:1] == (size,) for name in varying):
            fix(inputs, size)
            return size
    return 0


def runs(model: ir.Model, size: int) -> Arrays:
    """Run a model with a free batch on random samples; returns nothing where it does not take so many."""
    try:
        infos = [ir.serde.serialize_value(i) for i in model.graph.inputs]
        return Session(skeleton(model)).run(random_inputs(infos, size))
    except ModelError:
        return {}


def fix(inputs: list[ir.Value], size: int | str) -> None:
    """Give axis 0 of the inputs a size, or a name."""
    for value in inputs:
        assert value.shape is not None
        value.shape = ir.Shape([size, *value.shape.dims[1:]])


def _numbers(model: ir.Model) -> list[int]:
    """Sizes that constants may have been made for: first entries of targets, first axes of weights."""
    found: dict[int, None] = {}
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            array = constant_of(value)
            if array is None or not array.ndim or not array.size:
                continue
            target = index == 1 and node.op_type in ("Reshape", "Expand", "Tile")
            found[int(array.ravel()[0]) if target else len(array)] = None
    return [n for n in found if 1 < n <= _MAX_BATCH]


def refusal(model: ir.Model, size: int) -> UnsupportedError:
    """The error for a model whose batch of ``size`` cannot be taken apart: what is at fault is named.

    One of 1 is what ``normalize`` leaves of a free batch of samples that depend on each other.
    """
    if (found := at_fault(model)) is not None:
        return found
    if size == 1:
        free = model.clone()
        fix(list(free.graph.inputs), 3)
        node = culprit(free, 3)
    else:
        node = culprit(model, size)
    return UnsupportedError(
        (f"the batch of {size} is baked in: " if size > 1 else "")
        + "the samples of a batch depend on each other in this model",
        node="" if node is None else str(node.name or ""),
        op="" if node is None else node.op_type,
        found=f"inputs with a fixed batch of {size}, and "
        + (
            "outputs that change with the other samples of it or that cannot be computed for one sample"
            if node is None
            else f"what {node.op_type} makes of one sample changes with its place or with the others"
        ),
        allowed="models that compute each sample by itself: a circuit takes one",
        do="export the model for inference with a batch of 1 or a free batch axis (-1 or 0 in Reshape)",
    )


def culprit(model: ir.Model, size: int) -> ir.Node | None:
    """The first node whose result has no axis with one entry for each of ``size`` samples.

    An entry is a sample's if it stays when the other samples change, and is the others' where they equal it.
    """
    values = [o for n in model.graph for o in n.outputs if o.name]
    infos = [ir.serde.serialize_value(i) for i in model.graph.inputs]
    given, others = random_inputs(infos, size, seed=0), random_inputs(infos, size, seed=1)
    first = {k: v[:1] for k, v in given.items()}

    def filled(rest: Callable[[str], np.ndarray]) -> Mapping[str, np.ndarray]:
        return {k: np.concatenate([v, rest(k)]) for k, v in first.items()}

    try:
        session = Session(skeleton(model), [str(v.name) for v in values])
        runs = [
            session.run(given),
            session.run(filled(lambda k: others[k][1:])),
            session.run(filled(lambda k: np.repeat(first[k], size - 1, axis=0))),
        ]
    except ModelError:
        return None
    for node in model.graph:
        if any(_mixed(str(o.name), size, *runs) for o in node.outputs if o.name):
            return node
    return None


def _mixed(name: str, size: int, one: Arrays, other: Arrays, equal: Arrays) -> bool:
    a, b, same = one[name], other[name], equal[name]
    if a.shape == b.shape == same.shape and _equal(a, b) and _equal(a, same):
        return False  # of sizes alone
    if a.shape != b.shape or a.shape != same.shape:
        return True
    for axis in (i for i, n in enumerate(a.shape) if n == size):
        mine = a.take([0], axis)
        if _equal(mine, b.take([0], axis)) and _equal(same, np.repeat(mine, size, axis=axis)):
            return False
    return True


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two results are the same but for the last bits."""
    if a.dtype.kind not in "fiub":
        return bool(np.array_equal(a, b))
    return bool(
        np.allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a[np.isfinite(a)]).max(initial=0), equal_nan=True)
    )
