"""Sums of many activations in front of products and maxima: a quantizer of their own keeps tables narrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnx_fhe
from onnx_fhe.analysis.regions.region_analysis import find_regions
from onnx_fhe.analysis.regions.regions import Kind
from onnx_fhe.ir.runtime import run
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.testing import pipelines

NORMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "InstanceNormalization": (
        "2,6,6",
        "y = InstanceNormalization(x, s, b)",
        {"s": np.float32([1, 2]), "b": np.float32([0, 1])},
    ),
    "LayerNormalization": (
        "16",
        "y = LayerNormalization<axis = -1>(x, s, b)",
        {"s": np.ones(16, np.float32), "b": np.zeros(16, np.float32)},
    ),
    "GroupNormalization": (
        "4,4,4",
        "y = GroupNormalization<num_groups = 2>(x, s, b)",
        {"s": np.ones(4, np.float32), "b": np.zeros(4, np.float32)},
    ),
    "LpNormalization": ("16", "y = LpNormalization<axis = -1, p = 2>(x)", {}),
}


@pytest.mark.parametrize("operator", NORMS)
def test_normalizations_alone_have_tables_of_few_bits(operator: str) -> None:
    """InstanceNormalization by itself took tables of 14 bits: its deviations are sums of 36 and more."""
    shape, body, weights = NORMS[operator]
    model = pipelines.model(f"(float[N,{shape}] x) => (y) {{ {body} }}", **weights)
    random, size = np.random.default_rng(0), [int(n) for n in shape.split(",")]
    # Samples and channels of their own mean and deviation.
    spread = random.uniform(0.5, 2, (300, *[1] * len(size)))
    values = (spread * random.normal(size=(300, *size)) + random.normal(size=spread.shape)).astype(np.float32)
    wanted = run(model, {"x": values[150:]})["y"]
    program = onnx_fhe.compile(model, {"x": values[:150]}, pipeline="accurate", backend="reference")
    assert program.statistics.max_table_bits <= 8
    found = program.run({"x": values[150:]}, mode="clear").outputs["y"]
    assert 1 - ((found - wanted) ** 2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum() > 0.9


def kinds(body: str) -> dict[str, Kind]:
    """What the tensors of a network are that are quantized."""
    k = np.ones((2, 2, 1, 1), np.float32)
    text = (
        f"(float[N,2,6,6] x) => (y) {{ c = Conv(x, k) a = Relu(c) {body} f = Flatten(m) y = MatMul(f, w) }}"
    )
    given = pipelines.model(text, k=k, w=np.ones((8, 2), np.float32))
    model = PassManager.parse("normalize").run(given).model
    regions = find_regions(model)
    assert all(v in regions.operands for v in regions.quantized if str(v.name) == "p")
    return {str(v.name): regions.tensors[v].kind for v in regions.quantized}


def test_a_mean_is_quantized_in_front_of_a_maximum() -> None:
    mean = "p = AveragePool<kernel_shape = [3, 3], strides = [1, 1], pads = [0, 0, 0, 0]>(a)"
    largest = "m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>"
    assert kinds(f"{mean} {largest}(p)") == {"a": Kind.ACTIVATION, "p": Kind.ACCUMULATOR}


def test_what_hardly_grows_is_read_as_it_is() -> None:
    largest = "m = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>"
    moved = "p = Transpose<perm = [0, 1, 3, 2]>(a)"
    assert kinds(f"{moved} {largest}(p)") == {"a": Kind.ACTIVATION}
    # One addition is one bit; a bootstrap for each element would cost more.
    assert kinds(f"{moved} s = Add(a, p) {largest}(s)") == {"a": Kind.ACTIVATION}


def test_a_linear_layer_reads_a_mean_as_it_is() -> None:
    body = "m = AveragePool<kernel_shape = [3, 3], strides = [3, 3]>(a)"
    assert kinds(body) == {"a": Kind.ACTIVATION}
