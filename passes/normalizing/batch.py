"""Making the batch axis free, when the model then computes the same for every sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...ir.errors import ModelError, UnsupportedError
from ...ir.graph import constant_of
from ...ir.runtime import Arrays, Session, skeleton
from ...ir.sampling import random_inputs
from . import shapes
from .edit import constant

_BATCHES = 2
_LARGE = 30.0


def free(model: ir.Model) -> bool:
    """Name axis 0 of every input ``N``, where the model computes each sample of a batch by itself.

    The batch may be free, or written into the file (1, or any other size). A batch that is written into the
    targets of Reshape, Expand and Resize is rewritten. A model that mixes its samples keeps a batch of 1.

    Returns:
        Whether the batch axis is free now.

    Raises:
        UnsupportedError: Another axis of an input is free, or the model mixes the samples of a batch that is
            not 1, so that no circuit can be made.
    """
    check_inputs(model)
    inputs = [i for i in model.graph.inputs if i.shape is not None and len(i.shape)]
    if not inputs or len(inputs) < len(model.graph.inputs):
        return False
    static = {s for i in inputs if i.shape is not None and isinstance(s := i.shape[0], int)}
    if len(static - {1}) > 1:
        return False  # axis 0 is no batch
    size = max(static | {1})
    inferred = all((shapes.dims_of(i) or [None])[0] == shapes.BATCH for i in inputs)
    _set_batch(inputs, size)
    if size > 1:
        shapes.infer(model)
        if not _is_batch(model, size):
            return False
    # Loading a large graph takes longer than running it: where one sample is the batch, one session does.
    shared = _loaded(model, inputs, size) if size == 1 else None
    samples = _run_alone(model, size, shared)
    _set_batch(inputs, shapes.BATCH)
    if samples is not None and _same_in_batch(model, samples, size, shared):
        if not inferred:
            shapes.infer(model)
        return True
    _set_batch(inputs, size)
    shapes.infer(model)
    undo = _open_targets(model, size)
    _set_batch(inputs, shapes.BATCH)
    if samples is not None and _same_in_batch(model, samples, size):
        shapes.infer(model)
        return True
    for node, index, shape in undo:
        node.replace_input_with(index, shape)
        if node.op_type == "Resize":
            node.attributes.pop("axes")
    _set_batch(inputs, size)
    shapes.infer(model)
    if size > 1:
        raise UnsupportedError(
            "the samples of a batch depend on each other in this model",
            found=f"inputs with a fixed batch of {size}, and outputs that change with the other samples of it"
            " or that cannot be computed for one sample",
            allowed="models that compute each sample by itself: a circuit takes one",
            do="export the model for inference with a batch of 1 or a free batch axis",
        )
    return False


def bind(model: ir.Model, data: Mapping[str, np.ndarray] | None) -> None:
    """Give the free axes of the inputs, but for axis 0, the sizes that ``data`` has."""
    for value in model.graph.inputs:
        array = None if data is None else data.get(str(value.name))
        if array is not None and value.shape is not None and array.ndim == len(value.shape):
            dims = [d if isinstance(d, int) else int(array.shape[i]) for i, d in enumerate(value.shape.dims)]
            value.shape = ir.Shape([value.shape[0], *dims[1:]])


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
                do="give the sizes: --bind NAME=VALUE, load(..., bind={NAME: VALUE}), or calibration data",
            )


def _shown(dims: list[int | str | None]) -> str:
    return "(" + ", ".join("?" if d is None else str(d) for d in dims) + ")"


def _set_batch(inputs: list[ir.Value], size: int | str) -> None:
    for value in inputs:
        assert value.shape is not None
        value.shape = ir.Shape([size, *value.shape.dims[1:]])


def _session(model: ir.Model) -> Session:
    return Session(skeleton(model))


def _is_batch(model: ir.Model, size: int) -> bool:
    """Whether every output has the batch on axis 0 too."""
    dims = [shapes.dims_of(o) for o in model.graph.outputs]
    return all(d and d[0] == size for d in dims)


def _loaded(model: ir.Model, inputs: list[ir.Value], size: int) -> Session | None:
    """A session with a free batch axis; None where onnxruntime sees that it cannot be free."""
    _set_batch(inputs, shapes.BATCH)
    try:
        return _session(model)
    except ModelError:
        return None
    finally:
        _set_batch(inputs, size)


def _run_alone(model: ir.Model, size: int, shared: Session | None) -> tuple[Arrays, Arrays] | None:
    """Inputs and outputs of batches that were computed apart; None where they have no samples on axis 0."""
    session = shared or _session(model)
    infos = [ir.serde.serialize_value(i) for i in model.graph.inputs]
    rows = [random_inputs(infos, size, seed=seed) for seed in range(_BATCHES)]
    for name, array in rows[-1].items():  # a maximum with 20 shows only where there is more
        rows[-1][name] = array * array.dtype.type(_LARGE) if array.dtype.kind == "f" else array
    found = [session.run(r) for r in rows]
    if any(np.ndim(a) == 0 or len(a) != size for f in found for a in f.values()):
        return None
    if any(np.shape(a) != np.shape(found[0][k]) for f in found for k, a in f.items()):
        return None  # as many results as the values want
    data = {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}
    return data, {k: np.concatenate([f[k] for f in found]) for k in found[0]}


def _same_in_batch(
    model: ir.Model, samples: tuple[Arrays, Arrays], size: int, shared: Session | None = None
) -> bool:
    """Whether all the samples in one batch, more than the file says, and one by itself give the same."""
    data, expected = samples
    try:
        session = shared or _session(model)
        together = session.run(data)
        alone = session.run({k: v[:1] for k, v in data.items()}) if size > 1 else {}
    except ModelError:
        return False
    return all(_close(together[k], v) for k, v in expected.items()) and all(
        _close(v, expected[k][:1]) for k, v in alone.items()
    )


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind not in "fiub":
        return bool(np.array_equal(found, expected))  # names of classes
    finite = expected[np.isfinite(expected)] if expected.dtype.kind == "f" else expected
    scale = float(np.abs(finite.astype(np.float64)).max(initial=0))
    return bool(np.allclose(found, expected, rtol=1e-4, atol=1e-5 * scale + 1e-7, equal_nan=True))


def _open_targets(model: ir.Model, size: int) -> list[tuple[ir.Node, int, ir.Value]]:
    """Rewrite constant targets of the batch's size: of Reshape to (-1, ...), of Expand to (1, ...).

    Those of Resize are for the other axes then. Returns the inputs that they were.
    """
    undo: list[tuple[ir.Node, int, ir.Value]] = []
    for node in list(model.graph):
        index = 3 if node.op_type == "Resize" else 1
        if node.op_type not in ("Reshape", "Expand", "Resize") or node.domain or len(node.inputs) <= index:
            continue
        target, before, after = (
            constant_of(node.inputs[index]),
            *map(shapes.static_of, (node.inputs[0], node.outputs[0])),
        )
        if target is None or not before or not after or 0 in after or before[0] != size:
            continue
        if len(target) != len(after) or int(target[0]) != size:
            continue
        if node.op_type == "Resize":
            roi = constant_of(node.inputs[1])
            if "axes" in node.attributes or (roi is not None and roi.size):
                continue
            node.attributes.add(ir.AttrInt64s("axes", list(range(1, len(after)))))
            opened = np.array(after[1:], np.int64)
        else:
            opened = np.array([-1 if node.op_type == "Reshape" else 1, *after[1:]], np.int64)
        old = node.inputs[index]
        assert old is not None
        undo.append((node, index, old))
        node.replace_input_with(index, constant(model.graph, opened, f"{old.name}_batched"))
    return undo
