"""Making the batch axis free, when the model then computes the same for every sample."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir.errors import ModelError, UnsupportedError
from ...ir.graph import constant_of
from ...ir.runtime import Arrays, Session, to_proto
from ...ir.sampling import random_inputs
from . import shapes
from .edit import constant

_SAMPLES = 2


def free(model: ir.Model) -> bool:
    """Name axis 0 of every input ``N``, where the model computes each sample of a batch by itself.

    A batch of 1 that is written into a Reshape is rewritten to -1. A model that mixes its samples, or has a
    batch other than 1, keeps a static batch.

    Returns:
        Whether the batch axis is free now.

    Raises:
        UnsupportedError: Another axis of an input is free, so that no circuit can be made.
    """
    check_inputs(model)
    inputs = [i for i in model.graph.inputs if i.shape is not None and len(i.shape)]
    if not inputs or len(inputs) < len(model.graph.inputs):
        return False
    sizes = [i.shape[0] for i in inputs if i.shape is not None]
    if any(isinstance(size, int) and size != 1 for size in sizes):
        return False
    _set_batch(inputs, 1)
    shapes.infer(model)
    singles = _singles(model)
    _set_batch(inputs, shapes.BATCH)
    if _same_in_batch(model, singles):
        shapes.infer(model)
        return True
    _set_batch(inputs, 1)
    shapes.infer(model)
    undo = _open_reshapes(model)
    _set_batch(inputs, shapes.BATCH)
    if _same_in_batch(model, singles):
        shapes.infer(model)
        return True
    for node, shape in undo:
        node.replace_input_with(1, shape)
    _set_batch(inputs, 1)
    shapes.infer(model)
    return False


def check_inputs(model: ir.Model) -> None:
    """Refuse inputs with a free axis besides the batch.

    Raises:
        UnsupportedError: There is one.
    """
    for value in model.graph.inputs:
        dims = shapes.dims_of(value)
        if dims is None or any(not isinstance(d, int) for d in dims[1:]):
            raise UnsupportedError(
                "an input of the model has axes without a fixed size",
                found=f"input {value.name!r}: {'unknown shape' if dims is None else _shown(dims)}",
                allowed="only the batch (axis 0) may be free: a circuit is made for one size",
                do="export the model with the sizes that it will be used with",
            )


def _shown(dims: list[int | str | None]) -> str:
    return "(" + ", ".join("?" if d is None else str(d) for d in dims) + ")"


def _set_batch(inputs: list[ir.Value], size: int | str) -> None:
    for value in inputs:
        assert value.shape is not None
        value.shape = ir.Shape([size, *value.shape.dims[1:]])


def _session(model: ir.Model) -> Session:
    return Session(shapes.without_shapes(to_proto(model)))


def _singles(model: ir.Model) -> tuple[dict[str, np.ndarray], list[Arrays]]:
    proto_inputs = list(to_proto(model).graph.input)
    rows = [random_inputs(proto_inputs, 1, seed=seed) for seed in range(_SAMPLES)]
    session = _session(model)
    data = {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}
    return data, [session.run(r) for r in rows]


def _same_in_batch(model: ir.Model, singles: tuple[dict[str, np.ndarray], list[Arrays]]) -> bool:
    data, expected = singles
    try:
        found = _session(model).run(data)
    except ModelError:
        return False
    for name, batch in found.items():
        rows = [r[name] for r in expected]
        if any(r.ndim == 0 or len(r) != 1 for r in rows) or batch.shape != (_SAMPLES, *rows[0].shape[1:]):
            return False
        scale = max(float(np.abs(r.astype(np.float64)).max(initial=0)) for r in rows)
        if not np.allclose(batch, np.concatenate(rows), rtol=1e-4, atol=1e-5 * scale + 1e-7, equal_nan=True):
            return False
    return True


def _open_reshapes(model: ir.Model) -> list[tuple[ir.Node, ir.Value]]:
    """Rewrite constant Reshape targets (1, ...) to (-1, ...); shapes are those of a batch of 1."""
    undo: list[tuple[ir.Node, ir.Value]] = []
    for node in list(model.graph):
        if node.op_type != "Reshape" or node.domain:
            continue
        target, before, after = (
            constant_of(node.inputs[1]),
            *map(shapes.static_of, (node.inputs[0], node.outputs[0])),
        )
        if target is None or not before or not after or 0 in after or before[0] != 1:
            continue
        if len(target) == len(after) and int(target[0]) == 1:
            old = node.inputs[1]
            assert old is not None
            undo.append((node, old))
            opened = np.array([-1, *after[1:]], np.int64)
            node.replace_input_with(1, constant(model.graph, opened, f"{old.name}_batched"))
    return undo
