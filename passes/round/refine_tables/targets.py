"""What the layers of the float model compute on calibration data, by node name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ....analysis.regions.linear import linear_of
from ....ir import runtime
from ...framework.base import Context
from ...normalize.normalize import Normalize


def float_outputs(
    source: ir.Model | None, data: Mapping[str, np.ndarray], context: Context
) -> dict[str, np.ndarray]:
    """Outputs of the linear operators of a float model; none where there is no such model.

    Args:
        source: The model as imported; not changed.
        data: Calibration inputs.
        context: Handed to ``normalize``, so that names are those of the integer level.
    """
    if source is None:
        return {}
    model = source.clone()
    Normalize(context=context)(model)
    values = {str(n.name): n.outputs[0] for n in model.graph if linear_of(n) is not None}
    if not values:
        return {}
    found = runtime.Session(model, [str(v.name) for v in values.values()]).run_batched(data)
    return {name: found[str(value.name)] for name, value in values.items()}
