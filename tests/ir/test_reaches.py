"""How large elements can become, operator by operator."""

from __future__ import annotations

import numpy as np

from onnx_fhe.ir.reaches import Reaches
from onnx_fhe.testing import pipelines


def test_a_value_without_axes_is_read_as_an_array():
    text = "(float[N,2] x) => (float[N,3] y) { y = Pad(x, pads, value) }"
    pads, value = np.array([0, 0, 0, 1]), np.array(-3, np.float32)
    model = pipelines.model(text, pads=pads, value=value)
    (x,), (y,) = model.graph.inputs, model.graph.outputs
    found = Reaches({x: (-2, 1)}, model.opset_imports[""]).of(y)
    assert found is not None
    np.testing.assert_array_equal(found, [[2, 2, 3]])
