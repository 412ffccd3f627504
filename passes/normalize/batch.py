"""Making the batch axis free, when the model then computes the same for every sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from ...analysis.batch import baked
from ...analysis.batch.beside import depends
from ...analysis.regions.refusals import at_fault
from ...ir import shapes
from ...ir.batch_runner import Arrays
from ...ir.editing import GraphEditor
from ...ir.errors import ModelError, UnsupportedError
from ...ir.graph import constant_of
from ...ir.runtime import Session, skeleton
from ...ir.sampling import random_inputs

_TRIED_BATCHES = 2
"""Batches of random inputs that are run."""
_LARGE_VALUE = 30.0
"""Factor of the last of them: operators that saturate show there what they do."""


Batch = Literal["free", "single", "fixed"]
"""Whether axis 0 counts samples, the model is made for one sample, or its samples depend on each other."""


def free(model: ir.Model) -> Batch:
    """Name axis 0 of every input ``N``, where the model computes each sample of a batch by itself.

    The batch may be free, or written into the file (1, or any other size). A batch that is written into the
    targets of Reshape, Expand and Resize is rewritten. What stays has a batch of 1.

    Returns:
        ``free``; or ``single`` where the batch is 1, as declared or because no other runs (``lift`` knows
        more), or ``fixed``.

    Raises:
        UnsupportedError: Another axis of an input is free, or the model mixes the samples of a batch that is
            not 1, so that no circuit can be made.
    """
    check_inputs(model)
    inputs = [i for i in model.graph.inputs if i.shape is not None and len(i.shape)]
    if not inputs or len(inputs) < len(model.graph.inputs):
        return "fixed"
    static = {s for i in inputs if i.shape is not None and isinstance(s := i.shape[0], int)}
    if len(static - {1}) > 1:
        return "fixed"  # axis 0 is no batch
    size = max(static | {1})
    inferred = all((shapes.dims_of(i) or [None])[0] == shapes.BATCH for i in inputs)
    baked.fix(inputs, size)
    if size > 1:
        shapes.infer(model)
        if not _is_batch(model, size):
            return "fixed"
    # Loading a large graph takes longer than running it: where one sample is the batch, one session does.
    shared = _loaded(model, inputs, size) if size == 1 else None
    try:
        samples = _run_alone(model, size, shared)
    except ModelError:
        # Not even one sample: unless a number is written into a batch that is declared free, nothing runs.
        if static or (found := _settled(model, inputs)) == "fixed":
            raise
        return found
    baked.fix(inputs, shapes.BATCH)
    if samples is not None and _same_in_batch(model, samples, size, shared):
        if not inferred:
            shapes.infer(model)
        return "free"
    baked.fix(inputs, size)
    shapes.infer(model)
    undo = _open_targets(model, size)
    baked.fix(inputs, shapes.BATCH)
    if samples is not None and _same_in_batch(model, samples, size):
        shapes.infer(model)
        return "free"
    for node, index, shape in undo:
        node.replace_input_with(index, shape)
        if node.op_type == "Resize":
            node.attributes.pop("axes")
    baked.fix(inputs, size)
    shapes.infer(model)
    if size > 1:
        raise baked.refusal(model, size)
    return "single" if static else _settled(model, inputs)


def _settled(model: ir.Model, inputs: list[ir.Value]) -> Batch:
    """``free`` for a model that declares a free batch that cannot be: a number may be written into it."""
    baked.fix(inputs, shapes.BATCH)
    size = 0 if baked.runs(model, 2) and baked.runs(model, 5) else baked.settle(model)
    if not size:
        baked.fix(inputs, 1)
    shapes.infer(model)
    return free(model) if size > 1 else "single" if size else "fixed"


def infer(model: ir.Model, source: ir.Model | None = None) -> None:
    """Infer shapes; where the model runs with one size of the batch only, that is fixed, in ``source`` too.

    Raises:
        UnsupportedError: No size will do, and an operator is why.
        ModelError: No size will do.
    """
    try:
        shapes.infer(model)
    except ModelError:
        size = baked.settle(model)
        if not size:
            if (found := at_fault(model)) is not None:
                raise found from None
            raise
        if source is not None:
            baked.fix(list(source.graph.inputs), size)
        shapes.infer(model)


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


def _session(model: ir.Model) -> Session:
    return Session(skeleton(model))


def _is_batch(model: ir.Model, size: int) -> bool:
    """Whether every output that depends on the inputs has the batch on axis 0 too."""
    dims = [shapes.dims_of(o) for o in model.graph.outputs if depends(o)]
    return all(d and d[0] == size for d in dims)


def _loaded(model: ir.Model, inputs: list[ir.Value], size: int) -> Session | None:
    """A session with a free batch axis; None where onnxruntime sees that it cannot be free."""
    baked.fix(inputs, shapes.BATCH)
    try:
        return _session(model)
    except ModelError:
        return None
    finally:
        baked.fix(inputs, size)


@dataclass(frozen=True)
class _Alone:
    """Batches that were computed apart.

    Attributes:
        data: Their inputs, one batch below the other.
        outputs: The same of the outputs that depend on them.
    """

    data: Arrays
    outputs: Arrays


def _run_alone(model: ir.Model, size: int, shared: Session | None) -> _Alone | None:
    """Some batches computed apart; None where they have no samples on axis 0."""
    session = shared or _session(model)
    infos = [ir.serde.serialize_value(i) for i in model.graph.inputs]
    rows = [random_inputs(infos, size, seed=seed) for seed in range(_TRIED_BATCHES)]
    for name, array in rows[-1].items():  # a maximum with 20 shows only where there is more
        rows[-1][name] = array * array.dtype.type(_LARGE_VALUE) if array.dtype.kind == "f" else array
    varying = [str(o.name) for o in model.graph.outputs if depends(o)]
    found = [{k: v for k, v in session.run(r).items() if k in varying} for r in rows]
    if any(np.ndim(a) == 0 or len(a) != size for f in found for a in f.values()):
        return None
    if any(np.shape(a) != np.shape(found[0][k]) for f in found for k, a in f.items()):
        return None  # as many results as the values want
    data = {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}
    return _Alone(data, {k: np.concatenate([f[k] for f in found]) for k in found[0]})


def _same_in_batch(model: ir.Model, samples: _Alone, size: int, shared: Session | None = None) -> bool:
    """Whether all the samples in one batch, more than the file says, and one by itself give the same.

    And whether the first of them gives the same whatever the others are: how far they move it is no question
    of rounding, for it stays at its place in a batch of the same size.
    """
    data, expected = samples.data, samples.outputs
    shifted = {
        k: np.concatenate([v[:1], np.roll(v[1:], 1, axis=0)[::-1] * 2])
        for k, v in data.items()
        if v.dtype.kind == "f"
    }
    try:
        session = shared or _session(model)
        together = session.run(data)
        beside = session.run(data | shifted)
        alone = session.run({k: v[:1] for k, v in data.items()}) if size > 1 else {}
    except ModelError:
        return False
    for name, wanted in expected.items():
        if not _close(together[name], wanted) or (alone and not _close(alone[name], wanted[:1])):
            return False
        if beside[name].shape != wanted.shape or not _close(beside[name][:1], together[name][:1], exact=True):
            return False
    return True


def _close(found: np.ndarray, expected: np.ndarray, exact: bool = False) -> bool:
    """Whether results are the same but for rounding: relative to their size, whatever that is."""
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind not in "fiub":
        return bool(np.array_equal(found, expected))  # names of classes
    if exact:
        return bool(np.allclose(found, expected, rtol=1e-6, atol=0, equal_nan=True))
    finite = expected[np.isfinite(expected)] if expected.dtype.kind == "f" else expected
    scale = float(np.abs(finite.astype(np.float64)).max(initial=0))
    return bool(np.allclose(found, expected, rtol=1e-4, atol=1e-5 * scale, equal_nan=True))


def _open_targets(model: ir.Model, size: int) -> list[tuple[ir.Node, int, ir.Value]]:
    """Rewrite constant targets of the batch's size: of Reshape to (-1, ...), of Expand to (1, ...).

    Those of Resize are for the other axes then. Returns the inputs that they were.
    """
    undo: list[tuple[ir.Node, int, ir.Value]] = []
    edit = GraphEditor(model)
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
        node.replace_input_with(index, edit.constant(f"{old.name}_batched", opened))
    return undo
