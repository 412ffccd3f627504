"""The trained student, back in the qdq model: integers, scales, biases, and the lattices as operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....ir.editing import GraphEditor
from .student import Student
from .table import Table

MIN_LIST_ENTRIES = 64
"""Entries that a list of values has at least: what looks at an operator by running it tries small indices."""


def write_back(model: ir.Model, student: Student, *, lattices: bool = True) -> None:
    """Put what was learned into ``model`` (the one that the student was made from), in place.

    Args:
        model: The model.
        student: The student.
        lattices: Whether the cells of rounded tables are written, too; not where another student will follow.
    """
    edit = GraphEditor(model)
    with torch.no_grad():
        for table in student.tables if lattices else []:
            if table.lattice.ratio.ndim:
                _insert_lattice(edit, student, table)
        for dq, weight in student.weights.items():
            old = dq.inputs[0]
            assert old is not None
            assert old.dtype is not None
            codes = weight.codes().round().numpy().astype(old.dtype.numpy())
            _replace(edit, dq, 0, codes)
            scale = weight.scale().numpy().reshape(-1).astype(np.float32)
            given = dq.inputs[1]
            assert given is not None
            _replace(edit, dq, 1, scale.reshape(given.const_value.shape.numpy()))  # type: ignore[union-attr]
        for quantizer in student.quantizers:
            activation = student.activations[quantizer.dequantize]
            if activation.free:
                scale = activation.log_scale.exp().numpy().astype(np.float32)
                for place in (quantizer.quantize, quantizer.dequantize):
                    _replace(edit, place, 1, scale)
        for value, tensor in student.constants.items():
            if isinstance(tensor, torch.nn.Parameter):
                new = edit.constant(f"{value.name}_trained", tensor.numpy())
                ir.convenience.replace_all_uses_with(value, new)
        for value, factors in student.factors.items():
            new = edit.constant(f"{value.name}_trained", factors().numpy())
            ir.convenience.replace_all_uses_with(value, new)
    RemoveUnusedNodesPass()(model)


def _replace(edit: GraphEditor, reader: ir.Node, index: int, array: np.ndarray) -> None:
    old = reader.inputs[index]
    assert old is not None
    reader.replace_input_with(index, edit.constant(f"{old.name}_trained", np.asarray(array)))


def _insert_lattice(edit: GraphEditor, student: Student, table: Table) -> None:
    """The cell of an accumulator, and what it stands for: element-wise, so it becomes part of the table.

    ``insert-rounding`` then finds the cells in the table's steps, and rounding loses nothing.
    """
    lattice = table.lattice
    ratio, origin, unit, shift, moved = (
        np.asarray(t.numpy(), np.float64)
        for t in (lattice.ratio, lattice.origin, student.unit(table), student.shift(table), lattice.moved)
    )
    rank, size = len(table.base.shape or []), 2**lattice.bits
    along = [-1 if i == lattice.axis else 1 for i in range(rank)]
    step, start = ratio * unit, shift + origin * unit
    # One flat list of values: cell k of channel c is entry c * size + k.
    values = np.broadcast_to(start, step.shape).reshape(-1, 1) + step.reshape(-1, 1) * (
        np.arange(size) + moved
    )
    flat = np.zeros(max(values.size, MIN_LIST_ENTRIES), np.float32)
    flat[: values.size] = values.reshape(-1)
    name = f"{table.base.name}_lattice"
    constants: dict[str, np.ndarray] = {
        "scale": (1 / step).astype(np.float32),
        "offset": (0.5 - start / step).astype(np.float32),
        "low": np.asarray(0.0, np.float32),
        "high": np.asarray(size - 1.0, np.float32),
        "channel": (np.arange(len(moved), dtype=np.int64) * size).reshape(along),
        "values": flat,
    }
    inputs = {k: edit.constant(f"{name}_{k}", a) for k, a in constants.items()}
    current = table.base
    readers = student.readers(table)
    edit.behind(table.base)
    made: list[ir.Value] = []
    for op, arguments in (
        ("Mul", ["scale"]),
        ("Add", ["offset"]),
        ("Floor", []),
        ("Clip", ["low", "high"]),
        ("Cast", []),
        ("Add", ["channel"]),
        ("Gather", ["values"]),
    ):
        given = [current, *(inputs[a] for a in arguments)]
        if op == "Gather":
            given.reverse()
        attributes = {"to": int(ir.DataType.INT64)} if op == "Cast" else {"axis": 0} if op == "Gather" else {}
        current = edit.add(op, given, f"{name}_{len(made)}", attributes, like=table.base)
        current.type = ir.TensorType(ir.DataType.FLOAT)
        made.append(current)
    for integer in made[-3:-1]:
        integer.type = ir.TensorType(ir.DataType.INT64)
    for reader in readers:
        for index, read in enumerate(reader.inputs):
            if read is table.base:
                reader.replace_input_with(index, current)
