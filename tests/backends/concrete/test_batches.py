"""Circuits that take several samples in one call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emission_cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_fhe
from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.registry import get_backend
from onnx_fhe.ir.errors import ArtifactError, UnsupportedError, UserError
from onnx_fhe.testing.integers import IntegerBuilder

QUICK = LowerOptions(p_error=1e-10, parameter_strategy="mono")
TOGETHER = 3


def lower(b: Any) -> Any:
    return get_backend("concrete").lower(b.model(), QUICK)


@pytest.mark.parametrize("case", CASES)
def test_every_operator_on_several_samples_at_once(case: str) -> None:
    # One sample is left over for the last call.
    b = IntegerBuilder(samples=2 * TOGETHER + 1)
    y = CASES[case](b)
    if case == "table-on-the-last-axis":
        b.samples["x_q"] = np.clip(b.samples["x_q"], [0, 1, 2], [7, 8, 9])
    b.decrypt(y)
    circuit = lower(b)
    together = circuit.of(TOGETHER)
    assert together.inputs[0].shape == (TOGETHER, *circuit.inputs[0].shape[1:])
    np.testing.assert_array_equal(together.clear(b.samples)["y"], b.expected()["y"])
    bootstraps = circuit.statistics().programmable_bootstraps
    assert together.statistics().programmable_bootstraps == TOGETHER * bootstraps


MOVES = {
    "concat": lambda b, x, y: b.op("Concat", x, y, axis=1),
    "concat-constant": lambda b, x, y: b.op(
        "Concat", x, b.op("Pad", y, b.constant([0, 1, 0, 2], np.int64)), axis=1
    ),
    "gather": lambda b, x, y: b.op("Gather", b.op("Add", x, y), b.constant([3, 1, 1], np.int64), axis=1),
    "slice": lambda b, x, y: b.op(
        "Slice", b.op("Sub", x, y), *(b.constant([n], np.int64) for n in (3, -9, 1, -2))
    ),
}


@pytest.mark.parametrize("case", MOVES)
def test_elements_move_within_their_sample(case: str) -> None:
    b = IntegerBuilder(samples=TOGETHER)
    b.decrypt(MOVES[case](b, b.encrypt("x", (4,)), b.encrypt("z", (4,))))
    circuit = lower(b)
    np.testing.assert_array_equal(circuit.of(TOGETHER).clear(b.samples)["y"], b.expected()["y"])


@settings(max_examples=60)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 2**16))
def test_places_in_a_batch_are_those_in_each_sample(sizes: list[int], batch: int, seed: int) -> None:
    from onnx_fhe.backends.concrete.layout import _of_batch

    random = np.random.default_rng(seed)
    places = random.integers(0, sum(sizes), 7)
    sources = [random.normal(size=(batch, n)) for n in sizes]
    flat = np.concatenate([s.ravel() for s in sources])
    found = flat[_of_batch(places, [batch * n for n in sizes], batch)]
    np.testing.assert_array_equal(found, np.concatenate(sources, axis=1)[:, places])


def test_samples_on_another_axis_are_refused() -> None:
    b = IntegerBuilder()
    turned = b.op("Transpose", b.encrypt("x", (4,)), perm=[1, 0])
    b.decrypt(b.op("Transpose", b.op("Neg", turned), perm=[1, 0]))
    with pytest.raises(UnsupportedError, match="together") as caught:
        lower(b).session(TOGETHER)
    assert caught.value.where.op == "Transpose"
    assert "--batch" in caught.value.do


def test_a_circuit_without_its_model_takes_one_sample_a_call(tmp_path: Path) -> None:
    b = IntegerBuilder()
    b.decrypt(b.dense(b.encrypt("x", (3,), high=3), 2))
    lower(b).save(tmp_path)
    loaded = get_backend("concrete").load(tmp_path)
    with pytest.raises(ArtifactError, match="without its integer model"):
        loaded.session(2)
    with_model = get_backend("concrete").load(tmp_path, b.model())
    np.testing.assert_array_equal(with_model.of(2).clear(b.samples)["y"], b.expected()["y"])


@pytest.mark.encrypted
def test_encrypted() -> None:
    b = IntegerBuilder(samples=2)
    b.decrypt(b.activate(b.dense(b.encrypt("x", (3,), high=1), 2, 1), 2))
    session = get_backend("concrete").lower(b.model(), replace(QUICK, compress_keys=False)).session(2)
    assert session.batch == 2
    session.keygen()
    found = session.decrypt(session.evaluate_alone(session.encrypt(b.samples)))
    np.testing.assert_array_equal(found["y"], b.expected()["y"])


def test_programs(digits_mlp: Any) -> None:
    data = {k: v[:5] for k, v in digits_mlp.calibration_data.items()}
    text = "normalize,quantize{weights=3},lower-to-integer,fuse-tlu"
    program = onnx_fhe.compile(digits_mlp.model, data, text, "reference")
    one, several = program.encrypted(data), program.encrypted(data, batch=2)
    for name, array in one.outputs.items():
        np.testing.assert_array_equal(array, several.outputs[name])
    assert several.evaluations is not None
    assert several.evaluations.batch == 2
    # Of three calls the first goes alone, and the last holds one sample.
    assert (several.evaluations.counted, several.evaluations.samples) == (2, 3)
    with pytest.raises(UserError, match="0 samples a call"):
        program.encrypted(data, batch=0)
