"""Whether a converted model computes what the original computes: both run on random inputs."""

from __future__ import annotations

import numpy as np
import onnx

from . import dialect, functions, walk
from .errors import ModelError
from .opsets import target_opset
from .runtime import Session
from .sampling import random_inputs

_OLDEST_BODY = 18
"""Opset that the bodies of the dialect are written in."""

_FREE_SIZES = (8, 1, 32)
"""Sizes of free axes that are tried, in this order, until the model runs and can be compared."""

_MAX_TIE_SHARE = 0.1
"""Share of the largest output by which a quantized model may move where a tie rounds to the other side."""


def check_conversion(before: onnx.ModelProto, after: onnx.ModelProto, opset: int) -> None:
    """Run both on random inputs and compare their outputs.

    Args:
        before: The original, in an IR version that onnxruntime runs; left as it is.
        after: The converted model; left as it is.
        opset: That of the original.

    Raises:
        ModelError: The outputs differ, or differ each time, or one of the two does not run.
    """
    original, after = _without_custom(before), _without_custom(after)
    dialect.attach(original)
    for function in original.functions:
        if function.domain == dialect.DOMAIN:
            function.opset_import[0].version = max(opset, _OLDEST_BODY)
    first, second = _session(original, opset), _session(dialect.attach(after), target_opset())
    inputs = list(original.graph.input)
    error: ModelError | None = None
    for free in _FREE_SIZES:
        data = random_inputs(inputs, batch=2, free=free)
        try:
            expected = first.run(data)
        except ModelError as failure:
            error = error or failure
            continue
        _must_be_deterministic(expected, first.run(data))
        _must_match(expected, second.run(data), opset, _rounds(before))
        return
    raise ModelError(
        "the model could not be run on random inputs, so its conversion could not be checked",
        found=error.found if error else "",
        do="export the model with static shapes (only the batch axis may stay free)",
    )


def _without_custom(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with Identity for operators whose bodies plug-ins give: these need not run in an old opset."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    local = {(f.domain, f.name) for f in copy.functions}
    for node in walk.nodes(copy):
        key = node.domain, node.op_type
        if key not in local and functions.body_of(*key) is not None:
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
    return copy


def _session(proto: onnx.ModelProto, opset: int) -> Session:
    try:
        return Session(proto)
    except ModelError as error:
        error.what = f"onnxruntime cannot load this model (opset {opset})"
        error.do = error.do or "export the model with opset 13 or later and standard operators"
        raise


def _rounds(proto: onnx.ModelProto) -> bool:
    """Whether the model quantizes what it computes: float error of another kernel may turn a tie there."""
    return any(n.op_type.startswith(("QuantizeLinear", "QLinear", "QGemm")) for n in walk.nodes(proto))


def _must_match(
    expected: dict[str, np.ndarray], found: dict[str, np.ndarray], opset: int, rounds: bool
) -> None:
    for name, array in expected.items():
        other = found.get(name)
        close = _near if rounds else _close
        if other is not None and array.shape == other.shape and close(array, other):
            continue
        raise ModelError(
            f"the model computes something else after conversion from opset {opset} to {target_opset()}",
            found=f"output {name!r} differs",
            do="export the model with a newer opset",
        )


def _must_be_deterministic(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    for name, array in first.items():
        if array.shape != second[name].shape or not _close(array, second[name]):
            raise ModelError(
                "the model computes something else each time it runs",
                found=f"output {name!r} differs between two runs on the same input",
                allowed="models without random operators",
                do="export the model for inference (eval mode)",
            )


def _near(array: np.ndarray, other: np.ndarray) -> bool:
    """Whether most values are the same, or all within a few steps of a quantizer."""
    if _close(array, other):
        return True
    a, b = array.astype(np.float64), other.astype(np.float64)
    scale = float(np.abs(a).max(initial=0.0))
    apart = np.abs(a - b)
    return bool(np.mean(apart <= 1e-4 * scale) >= 0.5 or apart.max(initial=0.0) <= _MAX_TIE_SHARE * scale)


def _close(array: np.ndarray, other: np.ndarray) -> bool:
    if array.dtype.kind not in "fc":
        return bool(np.array_equal(array, other))
    finite = np.abs(array[np.isfinite(array)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(array, other, rtol=1e-4, atol=1e-5 * scale + 1e-7, equal_nan=True))
