"""Every operator of the integer level, emitted for Concrete, against onnxruntime value by value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emission_cases import CASES, image, vector
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.checking import check_against
from onnx_fhe.backends.registry import get_backend
from onnx_fhe.ir.dialect import DOMAIN
from onnx_fhe.ir.errors import UnsupportedError, VerificationError
from onnx_fhe.testing.integers import IntegerBuilder

QUICK = LowerOptions(p_error=1e-10, parameter_strategy="mono")
"""One parameter set, for it compiles once; so few errors that no simulation of a test ever sees one."""


def assert_lowers(b: Any, simulated: bool = True) -> Any:
    """The circuit computes what onnxruntime does, in the clear and (without rounding) simulated."""
    circuit = get_backend("concrete").lower(b.model(), QUICK)
    done = check_against(b.model(), circuit, b.samples)
    assert (done.samples, done.skipped) == (b.count, 0)
    if simulated:
        few = {k: v[:4] for k, v in b.samples.items()}
        found = circuit.simulate(few)
        for name, expected in b.expected().items():
            np.testing.assert_array_equal(found[name], expected[:4])
    return circuit


@pytest.mark.parametrize("case", CASES)
def test_operator(case: str) -> None:
    b = IntegerBuilder()
    y = CASES[case](b)
    if case == "table-on-the-last-axis":
        b.samples["x_q"] = np.clip(b.samples["x_q"], [0, 1, 2], [7, 8, 9])
    b.decrypt(y)
    assert_lowers(b)


def test_approximate_rounding_is_the_exact_one_in_the_clear() -> None:
    b = IntegerBuilder(samples=100)
    b.decrypt(b.activate(b.dense(vector(b), 4), 3, "approximate"))
    assert_lowers(b, simulated=False)


def test_approximate_rounding_errs_by_one_step_at_most() -> None:
    b = IntegerBuilder(samples=60)
    h = b.dense(vector(b, 8), 4)
    low = int(b.run(h).min())
    h = b.op("Add", h, b.constant([-low]))
    span = int(b.run(h).max())
    removed = (span.bit_length()) - 3
    h = b.op("RoundBits", h, domain=DOMAIN, lsbs_to_remove=removed, mode="approximate")
    b.decrypt(b.lookup(h, np.arange(16)[None], [0], step=2**removed))
    circuit = get_backend("concrete").lower(b.model(), QUICK)
    found = circuit.simulate(b.samples)["y"]
    difference = np.abs(found - b.expected()["y"])
    assert difference.max() <= 1
    assert difference.mean() < 0.2


@pytest.mark.parametrize("mode", ["exact", "approximate"])
def test_outputs_can_be_rounded(mode: str) -> None:
    b = IntegerBuilder()
    h = b.dense(b.activate(b.dense(vector(b), 4), 3), 3)
    b.decrypt(b.op("RoundBits", h, domain=DOMAIN, lsbs_to_remove=2, mode=mode))
    circuit = assert_lowers(b, simulated=mode == "exact")
    few = {k: v[:10] for k, v in b.samples.items()}
    difference = np.abs(circuit.simulate(few)["y"] - b.expected()["y"][:10])
    assert set(np.unique(difference)) <= {0, 4}
    assert "apply_lookup_table" not in circuit.mlir.rsplit("matmul", 1)[1]


def test_a_value_added_to_itself_again_and_again_keeps_its_error_rate() -> None:
    """Concrete would count the noise of a doubled value as that of two values."""
    b = IntegerBuilder(samples=200)
    h = vector(b, 4, low=-2, high=1)
    for _ in range(4):
        h = b.op("Add", h, b.op("Identity", h))
    b.decrypt(h)
    circuit = get_backend("concrete").lower(b.model(), LowerOptions(p_error=1e-5))
    np.testing.assert_array_equal(circuit.simulate(b.samples)["y"], b.expected()["y"])


def test_readers_that_need_different_widths() -> None:
    """One accumulator goes to a narrow table, to a wide one, through rounding, and to the client."""
    b = IntegerBuilder(samples=40)
    h = b.dense(vector(b, 4, high=3), 2, 1)
    span = int(b.run(h).max()) - int(b.run(h).min())
    assert span < 32
    narrow = b.activate(h)
    wide = b.lookup(h, b.rng.integers(0, 4, (1, 128)), [-64])
    rounded = b.activate(h, 2)
    b.decrypt(narrow, "narrow")
    b.decrypt(wide, "wide")
    b.decrypt(rounded, "rounded")
    b.decrypt(h, "raw", low=-200, high=200)
    assert_lowers(b)


def test_a_rounding_that_two_tables_share() -> None:
    b = IntegerBuilder()
    h = b.op("Add", b.dense(vector(b, 4), 3), b.constant([64]))
    rounded = b.op("RoundBits", h, domain=DOMAIN, lsbs_to_remove=3, mode="exact")
    b.decrypt(b.lookup(rounded, b.rng.integers(0, 4, (1, 16)), [0], step=8), "one")
    b.decrypt(b.lookup(rounded, b.rng.integers(0, 4, (3, 32)), [-64, 0, -8], step=8), "two")
    assert_lowers(b)


def test_a_residual_sum_of_two_branches() -> None:
    b = IntegerBuilder()
    h = b.activate(b.conv(image(b, 1, (4, 4), high=3), 2, (3, 3), pads=[1, 1, 1, 1]), 3)
    branch = b.activate(b.conv(h, 2, (3, 3), pads=[1, 1, 1, 1]), 3, low=-4, high=3)
    total = b.activate(b.op("Add", h, branch), 3)
    b.decrypt(b.dense(b.op("Flatten", total), 3))
    assert_lowers(b)


def test_a_constant_past_the_width_of_its_table_wraps() -> None:
    b = IntegerBuilder()
    h = b.op("Add", b.op("Mul", vector(b, high=3), b.constant(1001)), b.constant(100_000))
    h = b.op("Sub", h, b.op("Mul", b.op("Identity", "x_q"), b.constant(1000)))
    y = b.lookup(h, b.rng.integers(0, 8, (1, 4)), [100_000])
    b.decrypt(y)
    circuit = assert_lowers(b)
    assert circuit.statistics().max_accumulator_bits == 3


def test_inputs_and_outputs_keep_their_names() -> None:
    b = IntegerBuilder()
    first, second = b.encrypt("zz", (3,)), b.encrypt("a/b.c", (3,), low=-2, high=1)
    b.decrypt(b.op("Sub", second, first), "o/2")
    b.decrypt(b.activate(b.op("Add", first, second), shared=True), "o.1")
    assert_lowers(b)


@given(st.data())
@settings(max_examples=12)
def test_random_graphs(data: st.DataObject) -> None:
    b = IntegerBuilder(data.draw(st.integers(0, 2**16), label="seed"), samples=8)
    pictures = data.draw(st.booleans(), label="pictures")
    signed = data.draw(st.booleans(), label="signed")
    shape = (2, 3, 3) if pictures else (4,)
    h = b.encrypt("x", shape, -2 if signed else 0, 1 if signed else 3)
    steps = ["linear", "add", "sub", "negate", "mul", "table", "round", "twice"]
    for step in data.draw(st.lists(st.sampled_from(steps), min_size=1, max_size=5), label="steps"):
        kept = h
        if step == "linear":
            h = b.conv(h, 2, (3, 3), pads=[1, 1, 1, 1]) if pictures else b.dense(h, 4, 2)
        elif step in ("add", "sub"):
            h = b.op(step.capitalize(), h, b.constant(b.rng.integers(-9, 10, (1, *shape))))
        elif step == "negate":
            h = b.op("Neg", h)
        elif step == "mul":
            h = b.op("Mul", h, b.constant(-2))
        elif step == "twice":
            h = b.op("Add", h, b.op("Identity", h))
        elif step == "table" and np.ptp(b.run(h)) < 64:
            h = b.activate(h, shared=data.draw(st.booleans()), low=-2, high=3)
        else:
            h = b.activate(h, 3, low=0, high=3)
        if np.ptp(b.run(h)) > 500:
            h = kept
    b.decrypt(h)
    assert_lowers(b, simulated=False)


@pytest.mark.parametrize("op", ["Mul", "MatMul"])
def test_products_of_encrypted_tensors(op: str) -> None:
    """A tensor times itself; the backend makes lookups of it."""
    b = IntegerBuilder()
    x = b.encrypt("x", (2, 2))
    b.decrypt(b.op(op, x, x, name="/product"))
    assert_lowers(b, simulated=False)


REFUSED: dict[str, tuple[Callable[[Any], str], str]] = {
    "Relu": (lambda b: b.op("Relu", vector(b), name="/act/Relu"), "/act/Relu"),
    "Gemm": (
        lambda b: b.op("Gemm", vector(b), b.constant(np.ones((6, 2))), b.constant([1, 2]), name="/fc"),
        "lower-to-integer",
    ),
    "ReduceSum": (
        lambda b: b.op("ReduceSum", image(b), b.constant([0, 1], np.int64), name="/sum"),
        "batch axis",
    ),
    "RoundBits": (
        lambda b: b.op(
            "Neg", b.op("RoundBits", vector(b), domain=DOMAIN, lsbs_to_remove=1, name="/round"), name="/neg"
        ),
        "TableLookup, Decrypt",
    ),
    "Conv": (lambda b: b.conv(image(b, 1, (3, 3, 3)), 1, (2, 2, 2), name="/conv"), "one or two dimensions"),
}


@pytest.mark.parametrize("op", REFUSED)
def test_refused_operators_are_named(op: str) -> None:
    make, reason = REFUSED[op]
    b = IntegerBuilder()
    b.decrypt(make(b), low=0, high=100)
    with pytest.raises(UnsupportedError, match=reason) as caught:
        get_backend("concrete").lower(b.model(), QUICK)
    assert caught.value.where.op == op
    assert caught.value.where.node.startswith("/")


def test_a_fixed_batch_is_refused() -> None:
    b = IntegerBuilder()
    b.decrypt(b.dense(vector(b), 2))
    b.inputs[0].type.tensor_type.shape.dim[0].dim_value = 20
    with pytest.raises(UnsupportedError, match="dynamic batch axis"):
        get_backend("concrete").lower(b.model(), QUICK)


def test_a_fraction_among_the_weights_is_our_defect() -> None:
    b = IntegerBuilder()
    b.decrypt(b.op("Gemm", vector(b, 2), b.constant([[1.0, 0.5]]), transB=1, name="/fc"), low=-9, high=9)
    with pytest.raises(VerificationError, match=r"(?s)not an integer.*/fc.*0\.5"):
        get_backend("concrete").lower(b.model(), QUICK)


def test_a_table_that_does_not_fit_its_rounding_is_our_defect() -> None:
    b = IntegerBuilder()
    h = b.op("RoundBits", vector(b), domain=DOMAIN, lsbs_to_remove=2)
    b.decrypt(b.lookup(h, np.zeros((1, 4)), [1], step=4), low=0, high=1)
    with pytest.raises(VerificationError, match="begins off the grid of its rounding"):
        get_backend("concrete").lower(b.model(), QUICK)
