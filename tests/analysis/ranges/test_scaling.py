"""What becomes of scales behind operators that choose: elements of different scales are never compared."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fhe.analysis.ranges.scaling import carried
from onnx_fhe.testing import pipelines


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [2, 3, 24])
def test_a_maximum_over_channels_does_not_keep_their_scales(size: int, seed: int) -> None:
    """The scales that callers try come from the same kind of generator as the values here."""
    text = f"(float[N,{4 * size}] x) => (y) {{ r = Reshape(x, s) y = ReduceMax<keepdims = 0>(r, a) }}"
    model = pipelines.model(text, s=np.int64([0, 4, size]), a=np.int64([2]))
    (value,) = model.graph.inputs
    scales = np.random.default_rng(seed).uniform(1, 2, (1, 4 * size))
    assert carried(list(model.graph), value, scales) is None
    same = np.repeat(scales[:, :4], size, axis=1)
    np.testing.assert_allclose(carried(list(model.graph), value, same), scales[:, :4], rtol=1e-6)
