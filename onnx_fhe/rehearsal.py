"""A quick trial of the passes on made-up data: whether they work, and which tables the circuit will have."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from .analysis.regions.linear import linear_of
from .backends.reference import ReferenceBackend
from .backends.statistics import CircuitStatistics
from .ir.batch_runner import Arrays
from .ir.errors import LimitError, ModelError, OnnxFheError
from .ir.range_options import RangeOptions
from .passes.framework.base import Context
from .passes.framework.instruments import Verify
from .passes.framework.manager import PassFailedError, PassManager

PIPELINE = (
    "quantize{weights=4 activations=4 inputs=4 method=nearest adapt=0 refit=false calibration=min-max},"
    "lower-to-integer,fuse-tlu"
)
"""The same tables as with any other widths, but small ones. Nothing is rounded, and no table is removed."""
REHEARSAL_SAMPLES = 16
"""Random samples that the pipeline is rehearsed with."""
MAX_NODES = 300
"""Nodes of a network up to which a rehearsal takes about a second."""
MAX_WEIGHTS = 2_000_000
"""Weights of such a network."""
MAX_ELEMENTS = 2_000_000
"""Elements of all tensors of such a network, for one sample."""


def made_up(model: ir.Model, kind: int = 0) -> Arrays:
    """Data of the right shapes: normal, or (``kind`` 1) positive, for networks that take logarithms."""
    random = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        dims = list(value.shape or [])
        shape = [REHEARSAL_SAMPLES, *(d if isinstance(d, int) else 1 for d in dims[1:])]
        dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        array: np.ndarray
        if dtype.kind == "b":
            array = random.random(shape) < 0.5
        elif dtype.kind in "iu":
            array = random.integers(0, 2, shape)
        else:
            array = random.uniform(0.5, 2, shape) if kind else random.normal(0, 1, shape)
        found[str(value.name)] = array.astype(dtype)
    return found


def is_quick(model: ir.Model) -> bool:
    """Whether a normalized model is small enough."""
    weights = sum(math.prod(x.shape) for n in model.graph if (x := linear_of(n)) is not None)
    sizes = (
        math.prod(d for d in list(v.shape or [])[1:] if isinstance(d, int))
        for n in model.graph
        for v in n.outputs
    )
    return len(list(model.graph)) <= MAX_NODES and weights <= MAX_WEIGHTS and sum(sizes) <= MAX_ELEMENTS


def rehearse(model: ir.Model) -> CircuitStatistics | None:
    """Statistics of the integer model that a normalized (or imported) model becomes; None where not known.

    Raises:
        OnnxFheError: It cannot be made whatever the data are.
    """
    error: OnnxFheError | None = None
    for kind in (0, 1):
        context = Context(calibration=made_up(model, kind), ranges=RangeOptions(margin=1.0))
        try:
            made = PassManager.parse(PIPELINE).run(model, context, [Verify()]).model
            return ReferenceBackend().lower(made).statistics()
        except LimitError:
            return None  # of these data, perhaps not of others
        except PassFailedError as failure:
            if not isinstance(failure.__cause__, MemoryError):
                return None  # a defect of a pass, perhaps met with these data alone
            raise ModelError(
                "there is not enough memory to run this network on a few samples",
                do="export the model with smaller tensors",
            ) from failure
        except OnnxFheError as failure:
            error = error or failure
    assert error is not None
    raise error
