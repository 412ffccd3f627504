"""The one place where a session of onnxruntime is made."""

from __future__ import annotations

import onnxruntime

from .errors import ModelError

# Who imported onnxruntime before onnx_fhe, which switches this off, at least sends nothing from here on.
onnxruntime.disable_telemetry_events()

MAX_ONE_THREAD_ELEMENTS = 2**18
"""Elements of weights and inputs up to which one thread is enough: thousands of small sessions are made for
one circuit, and to start threads takes longer than they save. Larger ones have two, whatever the machine has:
sums in another order differ in their last bits."""


def make(content: bytes, elements: int = 0, kept: bool = False) -> onnxruntime.InferenceSession:
    """Make a session.

    Args:
        content: The model, as the bytes of its file.
        elements: Elements of its weights and of what a run is given.
        kept: Whether it is one of many that wait for their next run, and holds no memory meanwhile.

    Raises:
        ModelError: onnxruntime cannot load the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2 if elements > MAX_ONE_THREAD_ELEMENTS else 1
    # A thread that waits for work in a loop takes the core from whoever has work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Operators without a kernel are replaced by their bodies in any case; to look for them beforehand as well
    # takes half the time of making a small session.
    options.add_session_config_entry("session.disable_aot_function_inlining", "1")
    if kept:
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    # Fusions keep the meaning but not every bit, and tables are made from these results; what is quantized is
    # fused to kernels that saturate on some processors. Constant folding on the large tables of the integer
    # level takes a thousand times longer than running them.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError("onnxruntime cannot load this model", found=str(error).strip()) from error
