"""Outputs that never vary: what the integers leave of their value, the client adds."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .ir.batch_runner import Arrays
from .ir.editing import GraphEditor
from .ir.errors import ModelError, UnsupportedError
from .ir.runtime import Session
from .ir.verify import verify

MIN_SAMPLES = 16
"""Samples from which on an output that did not vary is taken for a constant."""
FLOAT_SUM_SHARE = 2e-6
"""Share of its value by which an output may vary for rounding in float32 alone, and be off."""


def settle_constants(model: ir.Model, network: ir.Model, data: Arrays) -> list[str]:
    """Make the outputs right that never vary, in the network and in the integer model.

    A constant is quantized as what varies beside it is, so it lies between two steps. Behind decryption the
    difference is known and is added, which no other value can notice: a client's output so moves by less than
    a step on samples where it does vary.

    Args:
        model: Integer level; edited in place, behind the encrypted part.
        network: The float model that it was made of.
        data: Calibration data.

    Returns:
        Notes: the outputs that were settled.
    """
    few = {k: v[:MIN_SAMPLES] for k, v in data.items()}
    if min(len(v) for v in few.values()) < MIN_SAMPLES or not _lacking(model, network, few):
        return []
    edit, notes = GraphEditor(model), []
    for name, lacking in _lacking(model, network, data).items():
        index, output = next((i, v) for i, v in enumerate(model.graph.outputs) if v.name == name)
        constant = edit.constant(f"{name}_constants_lack", lacking)
        edit.behind(output)
        settled = edit.add("Add", [output, constant], f"{name}_settled", like=output)
        # Whoever else reads the output goes on reading it as it was: what that lacks was found so.
        output.name, settled.name = f"{name}_in_steps", name
        model.graph.outputs[index] = settled
        count = int(np.count_nonzero(lacking))
        notes.append(
            f"{count} {'elements' if count > 1 else 'element'} of output {name!r} never"
            f" {'vary' if count > 1 else 'varies'} on calibration data: the client adds what quantizing took"
            " from their values"
        )
    if notes:
        verify(model)
    return notes


def _lacking(model: ir.Model, network: ir.Model, data: Arrays) -> dict[str, np.ndarray]:
    """What has to be added to each output that lacks something: float32, of the shape of one sample."""
    outputs = [v for v in model.graph.outputs if v.dtype is ir.DataType.FLOAT and v.producer() is not None]
    names = [str(v.name) for v in outputs]
    if not names:
        return {}
    try:
        wanted = Session(network, names).run_batched(data)
    except (ModelError, UnsupportedError):
        # Such as a batch written into a Reshape. What compares the circuit with the network says so.
        return {}
    found = Session(model, names).run_batched(data)
    lacking = {}
    for name in names:
        a, b = wanted[name].astype(np.float64), found[name].astype(np.float64)
        if a.shape != b.shape or a.ndim < 1 or len(a) != len(next(iter(data.values()))):
            continue
        level = np.abs(a).max(axis=0)
        constant = np.maximum(np.ptp(a, axis=0), np.ptp(b, axis=0)) <= FLOAT_SUM_SHARE * level
        off = a.mean(axis=0) - b.mean(axis=0)
        missing = np.where(constant & (np.abs(off) > FLOAT_SUM_SHARE * level), off, 0.0)
        if np.any(missing):
            lacking[name] = missing[None].astype(np.float32)
    return lacking
