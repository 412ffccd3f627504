"""Constant inputs of the operators of a circuit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..errors import VerificationError
from ..graph import is_constant


def constant_input(node: ir.Node, index: int) -> ir.TensorProtocol:
    """The tensor of an input that has to be an initializer.

    Raises:
        VerificationError: It is computed, or can be overridden.
    """
    value = node.inputs[index]
    if value is None or value.const_value is None or not is_constant(value):
        raise VerificationError(
            "a table is not constant",
            found="a computed table",
            allowed="initializers",
            node=node.name or "",
            op=node.op_type,
        )
    return value.const_value


def integers_of(value: ir.Value | None, node: ir.Node) -> np.ndarray:
    """The integers of a constant that ``node`` reads, as int64.

    Raises:
        VerificationError: It holds something else.
    """
    assert value is not None
    assert value.const_value is not None
    array = value.const_value.numpy()
    rounded = np.rint(array)
    if not np.array_equal(array, rounded):
        raise VerificationError(
            "a constant of the encrypted region is not an integer",
            found=f"{array.ravel()[np.argmax(array.ravel() != rounded.ravel())]} in {value.name!r}",
            allowed="integers",
            node=node.name or "",
            op=node.op_type,
        )
    return np.asarray(rounded.astype(np.int64))
