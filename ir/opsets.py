"""Which ai.onnx opset and IR version models are kept in: the newest that the installed onnxruntime loads."""

from __future__ import annotations

from functools import cache

import onnx
import onnxruntime
from onnx import TensorProto, helper

OLDEST_OPSET = 13
"""Every importable model ends at or above this opset (QuantizeLinear has an axis from 13 on)."""


@cache
def target_opset() -> int:
    """Newest ai.onnx opset that both the installed onnx and onnxruntime know."""
    return _newest(onnx.defs.onnx_opset_version(), OLDEST_OPSET, lambda v: _loads(v, 8))


@cache
def target_ir_version() -> int:
    """Newest ONNX IR version that the installed onnxruntime loads."""
    return _newest(int(onnx.IR_VERSION), 8, lambda v: _loads(target_opset(), v))


def _newest(start: int, stop: int, works: object) -> int:
    assert callable(works)
    for version in range(start, stop, -1):
        if works(version):
            return version
    return stop


def _loads(opset: int, ir_version: int) -> bool:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - onnxruntime raises its own pybind types for "too new"
        return False
    return True
