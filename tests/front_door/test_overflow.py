"""The overflow that is expected: in the manifest and in words, and what comes about."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_fhe
from onnx_fhe.overflow import TOLD_OVERFLOW_RATE, expected_overflow, in_words, notes
from onnx_fhe.testing import pipelines

PIPELINE = (
    "normalize,quantize{weights=4 activations=5 inputs=5},lower-to-integer,fuse-tlu,insert-rounding{bits=4}"
)


def drawn(samples: int, seed: int) -> dict[str, np.ndarray]:
    return {"input": np.random.default_rng(seed).normal(size=(samples, 6)).astype(np.float32)}


def program(samples: int = 300, **options: object) -> onnx_fhe.Program:
    model = pipelines.imported(pipelines.dense(6, 8, 7, 3))
    return onnx_fhe.compile(
        model, drawn(samples, 0), PIPELINE, backend="reference", accept_loss=True, **options
    )


@pytest.mark.parametrize("margin", [0.0, "auto"])
def test_what_is_expected_comes_about(margin):
    made = program(range_margin=margin)
    expected = made.manifest.expected_overflow
    ran = made.run(drawn(4000, 1))
    found = ran.overflows.samples / ran.samples
    if margin == "auto":
        assert 0 <= expected < TOLD_OVERFLOW_RATE
        assert found < 2 * TOLD_OVERFLOW_RATE
        assert not any(n.startswith("overflow") for n in made.notes)
    else:
        assert 0.4 < expected / found < 2.5
        assert expected > 10 * TOLD_OVERFLOW_RATE
        assert any("more calibration" in n.lower() for n in made.notes)


def test_sound_ranges_cannot_overflow():
    made = program(range_mode="sound")
    assert made.manifest.expected_overflow == 0
    assert expected_overflow(made.integer_model, None) == 0


def test_few_samples_do_not_tell():
    made = program(samples=10)
    assert made.manifest.expected_overflow is None
    assert expected_overflow(made.integer_model, {"input": np.repeat(drawn(2, 0)["input"], 50, 0)}) is None


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (None, "not known"),
        (0, "cannot happen"),
        (1e-9, "less than 1 in 1,000,000"),
        (1 / 5123, "about 1 in 5,100 samples"),
        (0.21, "about 1 in 5 samples"),
    ],
)
def test_words(share, words):
    assert words in in_words(share)
    assert bool(notes(share)) == (share is not None and share > TOLD_OVERFLOW_RATE)
