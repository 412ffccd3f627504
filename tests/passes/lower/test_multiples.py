"""Elements of different scales are averaged: whole numbers give them one scale, exactly or nearly."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.ir.errors import LimitError
from onnx_fhe.ir.intervals import LARGEST_FLOAT32_INTEGER
from onnx_fhe.ir.reaches import Reaches
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes.lower.multiples import MAX_MULTIPLE_TRIED, MAX_RELATIVE_ERROR, ROOM_SHARE, multiples
from onnx_fhe.passes.lower.views import MAX_MULTIPLIER_ERROR, whole_multiples
from onnx_fhe.testing import pipelines

PIPELINE = "normalize,quantize{{weights={0} activations={0} inputs={0}}}"
POOL = "AveragePool<kernel_shape = {k}, pads = {p}, strides = {s}, ceil_mode = {c}, count_include_pad = {i}>"


def images(seed: int, count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(count, 2, 5, 5)).astype(np.float32)}


def stages(body: str, bits: int, **weights: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs of the float, the quantized and the integer model."""
    random = np.random.default_rng(3)
    given = {"k": random.normal(0, 0.4, (3, 2, 2, 2)), "c": random.normal(0, 0.3, 3), **weights}
    arrays = {k: a.astype(np.float32) if a.dtype.kind == "f" else a for k, a in given.items()}
    network = pipelines.imported(
        pipelines.text(f"(float[N,2,5,5] x) => (float[N,M] y) {{ {body} }}", **arrays)
    )
    data, test = images(0, 200), images(1, 100)
    wanted = pipelines.outputs(network, test)
    quantized = pipelines.apply(network, PIPELINE.format(bits), data)
    found = pipelines.outputs(quantized, test)
    integer = pipelines.apply(quantized, "lower-to-integer,fuse-tlu", data)
    return wanted, found, pipelines.outputs(integer, test)


def check(wanted: np.ndarray, quantized: np.ndarray, integer: np.ndarray, least: float) -> None:
    """What whole numbers cannot give is small beside what quantizing has lost."""
    strayed = np.sqrt(((integer - quantized) ** 2).mean())
    lost = np.sqrt(((quantized - wanted) ** 2).mean())
    assert strayed <= 0.3 * lost + 1e-6 * np.abs(wanted).max()
    error = ((integer - wanted) ** 2).sum(axis=0)
    assert (1 - error / ((wanted - wanted.mean(axis=0)) ** 2).sum(axis=0)).min() > least


BORDER = POOL.format(k=[3, 3], p=[2, 1, 1, 2], s=[1, 1], c=0, i=0)
OTHER = POOL.format(k=[2, 3], p=[1, 2, 0, 1], s=[2, 1], c=1, i=0)


@pytest.mark.parametrize("bits", [5, 8])
@pytest.mark.parametrize(
    "body",
    [
        f"a = Conv(x, k, c) p = {BORDER}(a) g = GlobalAveragePool(p) y = Flatten(g)",
        f"a = Conv(x, k, c) r = Relu(a) p = {BORDER}(r) q = {OTHER}(p) g = GlobalAveragePool(q)"
        " y = Flatten(g)",
        f"a = Conv(x, k, c) r = Relu(a) p = {BORDER}(r) y = ReduceMean<keepdims = 0>(p, space)",
        f"a = Conv(x, k, c) r = Relu(a) p = {BORDER}(r) q = {OTHER}(r) f = Flatten(p) h = Flatten(q)"
        " j = Concat<axis = 1>(f, h) y = ReduceMean<keepdims = 1>(j, last)",
        f"a = Conv(x, k, c) r = Relu(a) p = {BORDER}(r) f = Flatten(p) h = Flatten(r)"
        " j = Concat<axis = 1>(f, h) s = Tanh(j) m = ReduceMean<keepdims = 1>(s, last) y = MatMul(m, w)",
    ],
)
def test_means_of_means_with_borders(body: str, bits: int) -> None:
    given = {"space": np.int64([2, 3]), "last": np.int64([1]), "w": np.ones((1, 1))}
    used = {k: a for k, a in given.items() if k in body.replace("<", " ").replace(")", " ").split()}
    check(*stages(body, bits, **used), least=0.95 if bits == 5 else 0.99)


@pytest.mark.parametrize("largest", ["GlobalMaxPool", "MaxPool<kernel_shape = [2, 2], strides = [2, 2]>"])
def test_a_scale_for_each_channel_ends_at_a_quantizer(largest: str) -> None:
    """What is quantized again is fitted to values without scales: they must not arrive with them."""
    body = f"a = Conv(x, k, c) r = Relu(a) p = {BORDER}(r) g = {largest}(p) f = Flatten(g) y = MatMul(f, w)"
    outputs = 3 if largest == "GlobalMaxPool" else 12
    wanted, quantized, integer = stages(body, 8, w=np.random.default_rng(5).normal(size=(outputs, 2)))
    check(wanted, quantized, integer, least=0.95)


windows = st.sampled_from([(1, 2), (2, 2), (3, 2), (2, 3), (3, 3)])


@st.composite
def pools(draw: st.DrawFn) -> str:
    kernel = draw(windows)
    # No tensor gets smaller, so that others can follow.
    before = [draw(st.integers(0, k - 1)) for k in kernel]
    after = [draw(st.integers(k - 1 - b, k - 1)) for k, b in zip(kernel, before, strict=True)]
    strides = [draw(st.sampled_from([1, 1, 2])) for _ in kernel]
    counts = draw(st.sampled_from([0, 0, 0, 1]))
    return POOL.format(k=list(kernel), p=before + after, s=strides, c=draw(st.integers(0, 1)), i=counts)


@settings(max_examples=12, deadline=None)
@given(st.lists(pools(), min_size=2, max_size=3), st.booleans(), st.booleans())
def test_random_pools_are_never_refused(chain, activation, together):
    names = ["r"]
    lines = ["a = Conv(x, k, c)", f"r = {'Relu' if activation else 'Identity'}(a)"]
    for number, one in enumerate(chain):
        lines.append(f"p{number} = {one}({'r' if together else names[-1]})")
        names.append(f"p{number}")
    if together:
        lines += [f"f{i} = Flatten(p{i})" for i in range(len(chain))]
        lines.append(f"j = Concat<axis = 1>({', '.join(f'f{i}' for i in range(len(chain)))})")
        lines.append("y = ReduceMean<keepdims = 1>(j, last)")
        given = {"last": np.int64([1])}
    else:
        lines += [f"g = GlobalAveragePool({names[-1]})", "y = Flatten(g)"]
        given = {}
    check(*stages(" ".join(lines), 5, **given), least=0.8)


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=8), st.sampled_from([15, 31, 255]), st.floats(1, 1e5)
)
def test_near_multiples_are_as_near_as_there_is_room(scales, levels, most):
    scale = np.float64(scales)
    found = multiples(scale, levels, most)
    assert (found.factor == np.rint(found.factor)).all()
    off = np.abs(found.factor * found.unit / scale - 1).max()
    assert off <= found.error + 1.1e-5
    if np.abs(found.factor).max() >= most:
        return  # the verifier says so
    assert found.error <= MAX_RELATIVE_ERROR
    exact = whole_multiples(scale)
    if most * ROOM_SHARE >= 100 * levels and (exact is None or np.abs(exact[0]).max() >= most):
        assert found.error <= MAX_MULTIPLIER_ERROR or found.factor.max() <= MAX_MULTIPLE_TRIED


def test_exact_multiples_stay() -> None:
    scale = 1 / np.float64([4, 6, 9])
    found = multiples(scale, 255, 1e4)
    assert found.error == 0
    assert found.factor.tolist() == [9, 6, 4]
    # Where there is no room for them, near ones do.
    near = multiples(1 / np.float64([1, 25, 49, 64]), 15, 3000)
    assert 0 < near.error <= MAX_RELATIVE_ERROR
    assert near.factor.max() < 3000


def integer_model(large: float, small: float) -> ir.Model:
    """Two elements are multiplied, one of them large, and added up."""
    return pipelines.model(
        "(float[N,2] x) => (float[N,1] y) { e = onnx_fhe.Encrypt<low = 0, high = 100>(x) a = Mul(e, m)"
        " b = Mul(a, n) s = ReduceSum<keepdims = 1>(b, i) y = onnx_fhe.Decrypt(s) }",
        m=np.float32([[large, small]]),
        n=np.float32([[small, large]]),
        i=np.int64([1]),
    )


def test_each_element_is_looked_at_where_the_whole_tensor_is_too_large():
    verify(integer_model(2.0**15, 1))
    with pytest.raises(LimitError, match="too large to be exact"):
        verify(integer_model(2.0**15, 4))


def test_a_reach_is_that_of_the_element():
    model = integer_model(1000, 1)
    values = {str(v.name): v for n in model.graph for v in n.outputs}
    reaches = Reaches({values["e"]: (-50.0, 100.0)}, 21)
    np.testing.assert_array_equal(reaches.of(values["a"]), [[100_000, 100]])
    np.testing.assert_array_equal(reaches.of(values["s"]), [[200_000]])
    assert reaches.of(model.graph.inputs[0]) is None
    assert LARGEST_FLOAT32_INTEGER > 200_000
