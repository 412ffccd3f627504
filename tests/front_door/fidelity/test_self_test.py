"""Samples on ciphertexts at compile time; and the newest reports of wrong results of Concrete 2.11.

The reports are those of zama-ai/concrete that were open in late 2026, as far as an integer model can say what
they do, in few bits so that they take seconds: https://github.com/zama-ai/concrete/issues/1316 (differences,
comparisons and scaled flags of two inputs, with one parameter set), .../1309 (an input added to a chain of
products behind a table) and .../1307 (the larger of a product and itself less one, returned alone).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnx_fhe
from onnx_fhe.backends.base import EncryptedSession, LowerOptions
from onnx_fhe.backends.reference import ReferenceCircuit
from onnx_fhe.backends.registry import get_backend
from onnx_fhe.backends.sides import Ciphertexts
from onnx_fhe.fidelity.ciphertexts import how_many, self_test
from onnx_fhe.ir.batch_runner import Arrays
from onnx_fhe.ir.errors import LoweringMismatchError
from onnx_fhe.machine import predict
from onnx_fhe.testing.integers import IntegerBuilder

TO_TABLES = "lower-to-integer,fuse-tlu,insert-rounding{bits=4}"


class Crooked(ReferenceCircuit):
    """A circuit that computes right in the clear, and something else on what it calls ciphertexts."""

    def __init__(self, model: ir.Model, off: Callable[[int], int]) -> None:
        super().__init__(model, LowerOptions())
        self.off = off
        self.calls = 0

    def session(self, batch: int = 1) -> EncryptedSession:
        session, decrypt = super().session(batch), super().session(batch).decrypt

        def crooked(ciphertexts: Ciphertexts) -> Arrays:
            self.calls += 1
            return {k: v + self.off(self.calls) for k, v in decrypt(ciphertexts).items()}

        session.decrypt = crooked  # type: ignore[method-assign]
        return session


def network(mode: str = "approximate") -> tuple[ir.Model, Arrays]:
    """Two layers, and inputs by the name of the graph input."""
    b = IntegerBuilder(samples=12)
    h = b.activate(b.dense(b.encrypt("x", (8,)), 6), 4, mode)
    b.decrypt(b.dense(h, 3))
    return b.model(), {"x": b.samples["x_q"].astype(np.float32)}


def test_what_is_the_same_is_said_in_plain_words():
    model, data = network()
    found = self_test(model, Crooked(model, lambda _: 0), data, 3)
    assert (found.samples, found.equal, found.largest, found.repeated) == (3, 3, 0, 0)
    assert "gave exactly what the same integers give" in found.sentence


def test_small_errors_of_rounding_are_allowed():
    model, data = network()
    found = self_test(model, Crooked(model, lambda _: 1), data, 2, p_error=1e-2)
    assert (found.equal, found.largest) == (0, 1)
    assert found.allowed >= 1
    assert "up to the small errors" in found.sentence


@pytest.mark.parametrize("mode", ["approximate", "exact"])
def test_a_gross_difference_is_a_defect(mode):
    model, data = network(mode)
    with pytest.raises(LoweringMismatchError, match="on ciphertexts") as error:
        self_test(model, Crooked(model, lambda _: 400), data, 3)
    assert "it was wrong again" in error.value.found


def test_a_difference_that_comes_now_and_then_is_a_defect_and_one_that_comes_once_is_not():
    model, data = network()
    with pytest.raises(LoweringMismatchError):
        self_test(model, Crooked(model, lambda call: 400 * (call % 2)), data, 3)
    found = self_test(model, Crooked(model, lambda call: 400 * (call == 1)), data, 3)
    assert (found.repeated, found.equal) == (1, 2)
    assert "1 had to be computed again" in found.sentence


def test_samples_that_overflow_are_left_out():
    model, data = network()
    wide = {"x": np.concatenate([data["x"][:2], data["x"]])}
    # Nothing out of range: all that come first are tried. The prologue clips what is outside.
    assert self_test(model, Crooked(model, lambda _: 0), wide, 4).samples == 4


def test_by_itself_it_takes_what_fits_in_its_time():
    price = replace(predict(network()[0]), keygen_seconds=2.0, seconds=1.0)
    assert how_many("auto", price) == (3, "")
    assert how_many("auto", replace(price, seconds=10.0)) == (1, "")
    samples, why = how_many("auto", replace(price, seconds=30.0))
    assert samples == 0
    assert "about 32 s" in why
    assert how_many(7, replace(price, seconds=30.0)) == (7, "")


@pytest.mark.encrypted
def test_compile_tries_its_circuit(tmp_path):
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[N,4] x) => (float[N,2] y)
        <float[3,4] w = {1,-1,0.5,0.2,0.3,1,-0.4,0.1,-1,0.2,0.7,1}, float[2,3] v = {1,-0.5,0.3,0.2,1,-1}> {
        h = Gemm<transB=1>(x, w) r = Relu(h) y = Gemm<transB=1>(r, v) }"""
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    data = {"x": np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)}
    pipeline = f"normalize,quantize{{weights=4 activations=4}},{TO_TABLES}"
    program = onnx_fhe.compile(path, data, pipeline, self_test="auto")
    assert program.manifest.self_test.samples == 3
    assert program.manifest.self_test.seconds > 0
    assert program.manifest.fidelity.noise
    program.save(tmp_path / "m.fhe")
    assert onnx_fhe.Program.load(tmp_path / "m.fhe").manifest.self_test == program.manifest.self_test


def flags(b: Any) -> None:
    """A comparison of two inputs, scaled and clamped, added to an input; their difference is returned too."""
    x, y = b.encrypt("x", (1,), -4, 3), b.encrypt("y", (1,), -4, 3)
    recovered = b.op("Neg", b.op("Sub", b.op("Neg", x), b.constant([-5])))
    apart = b.op("Sub", recovered, y)
    flag = b.lookup(apart, (np.arange(-12, 4) > -5)[None].astype(int), [-12])
    clamped = b.lookup(b.op("Mul", flag, b.constant([12])), np.minimum(np.arange(0, 16), 10)[None], [0])
    b.decrypt(b.op("Add", clamped, x), "sum", -4, 13)
    b.decrypt(apart, "apart", -12, 2)


def chain(b: Any) -> None:
    """A comparison times 10, 13 and 13 again, with constants between, and an input added at its end."""
    x, y = b.encrypt("x", (1,), -4, 3), b.encrypt("y", (1,), -4, 3)
    apart = b.op("Sub", b.op("Mul", x, b.constant([2])), y)
    flag = b.lookup(apart, (np.arange(-16, 16) > 0)[None].astype(int), [-16])
    found = b.op("Mul", b.op("Add", flag, b.constant([3])), b.constant([-10]))
    found = b.op("Mul", b.op("Sub", found, b.constant([13])), b.constant([13]))
    b.decrypt(b.op("Add", b.op("Mul", found, b.constant([13])), x), "out", -9200, 0)


def alone(b: Any) -> None:
    """The larger of a product, made of squares, and itself less one; nothing else is returned."""
    x, y = b.encrypt("x", (1,), -4, 3), b.encrypt("y", (1,), -4, 3)
    squares = (np.arange(-8, 8) ** 2 // 4)[None]
    total, apart = b.op("Add", x, y), b.op("Sub", x, y)
    product = b.op("Sub", b.lookup(total, squares, [-8]), b.lookup(apart, squares, [-8]))
    below = b.op("Sub", product, b.constant([1]))
    more = b.lookup(b.op("Sub", product, below), np.maximum(np.arange(-2, 2), 0)[None], [-2])
    b.decrypt(b.op("Add", below, more), "out", -16, 17)


@pytest.mark.encrypted
@pytest.mark.parametrize("situation", [flags, chain, alone])
def test_situations_of_wrong_results_are_right_here(situation):
    b = IntegerBuilder(seed=3, samples=40)
    situation(b)
    model = b.model()
    # As in the reports; to expand keys that were sent compressed takes as long as to make them.
    options = LowerOptions(parameter_strategy="mono", compress_keys=False)
    circuit = get_backend("concrete").lower(model, options)
    expected, session = b.expected(), circuit.session()
    np.testing.assert_equal(circuit.clear(b.samples), {k: v.astype(np.int64) for k, v in expected.items()})
    session.keygen()
    for i in range(2):
        sample = {k: v[i : i + 1] for k, v in b.samples.items()}
        found = session.decrypt(session.evaluate(session.encrypt(sample)))
        for name, wanted in expected.items():
            np.testing.assert_array_equal(found[name], wanted[i : i + 1])
