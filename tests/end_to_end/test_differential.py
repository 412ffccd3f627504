"""Stage against stage: the usual passes on every network of the zoo and on random ones, file by file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.checking import check_against
from onnx_fhe.backends.registry import get_backend
from onnx_fhe.ir.errors import PipelineError
from onnx_fhe.ir.level import level_of
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.range_options import RangeOptions
from onnx_fhe.ir.runtime import run, to_proto
from onnx_fhe.ir.verify import verify
from onnx_fhe.passes import Context, PassManager
from onnx_fhe.passes.framework.differential import DifferentialCheck
from onnx_fhe.passes.framework.pipeline import parse_passes
from onnx_fhe.testing import pipelines, strategies, zoo

NETWORKS = list(zoo.NETWORKS)

ROAD = ("normalize", "quantize{%s}", "lower-to-integer", "fuse-tlu", "insert-rounding{%s}")
WIDTHS = [
    ("weights=1 activations=8 inputs=3", "bits=2"),
    ("weights=2 activations=7 inputs=4", "bits=3 mode=exact"),
    ("weights=3 activations=6 inputs=5", "bits=4 range-fill=full"),
    ("weights=4 activations=5 inputs=6", "bits=5 range-fill=none"),
    ("weights=5 activations=4 inputs=7", "bits=6 output-bits=0"),
    ("weights=6 activations=3 inputs=8", "bits=7"),
    ("weights=7 activations=2 inputs=1", "bits=8 mode=exact"),
    ("weights=8 activations=1 inputs=2", "bits=1"),
]
"""Every width from 1 to 8 of weights, activations, inputs and tables."""


def content(model) -> bytes:
    return to_proto(model).SerializeToString(deterministic=True)


def road(widths: tuple[str, str]) -> list[str]:
    quantize, rounding = widths
    return [p % (quantize if "quantize" in p else rounding) if "%" in p else p for p in ROAD]


@pytest.mark.parametrize("number", range(len(NETWORKS)), ids=NETWORKS)
def test_every_stage_is_a_model(number, zoo):
    """Valid, the same after saving and loading, and with outputs of the same names and types."""
    proto = zoo.NETWORKS[NETWORKS[number]]()
    data = zoo.samples(proto)
    mode = ("observed", "sound")[number // len(WIDTHS) % 2]
    context = Context(calibration=data, ranges=RangeOptions(mode))
    model = pipelines.imported(proto)
    wanted = run(model, data)
    for text in road(WIDTHS[number % len(WIDTHS)]):
        (one,) = parse_passes(text)
        before = content(model)
        result = one.with_context(context)(model)
        model = result.model
        assert result.modified == (content(model) != before), text
        verify(model)
        onnx.checker.check_model(to_proto(model))
        found = run(model, data)
        assert {k: (v.dtype, v.shape) for k, v in found.items()} == {
            k: (v.dtype, v.shape) for k, v in wanted.items()
        }
        again = pipelines.reload(model)
        verify(again)
        assert level_of(again) is level_of(model)
        for name, array in run(again, data).items():
            np.testing.assert_array_equal(array, found[name])
        # Models that came quantized are left alone; the others change the level.
        if text in {"normalize", "fuse-tlu"} or "rounding" in text or text.startswith("quantize"):
            before = content(model)
            assert not one.with_context(context)(model).modified, text
            assert content(model) == before
        else:
            with pytest.raises(PipelineError, match="does not run on a model of the"):
                one.with_context(context)(model)
    if mode == "sound":
        assert pipelines.overflows(model).by_node == {}


def test_what_passes_claim_to_preserve_they_do(small):
    """The instrument that users have compares before and after; it is content with every pass."""
    check = DifferentialCheck(small.data)
    PassManager.parse(",".join(road(WIDTHS[3])), [check]).run(
        pipelines.imported(small.proto), Context(calibration=small.data)
    )
    exact = [d for d in check.differences if d.preserves != "approximate"]
    assert {d.pass_name for d in exact} == {"normalize", "lower-to-integer", "fuse-tlu"}
    # Where a tie falls to the other side by float error, one activation is one step off.
    assert max(d.relative for d in exact if d.pass_name != "lower-to-integer") < 1e-5


@given(proto=strategies.networks(), widths=st.sampled_from(WIDTHS[2:6]), seed=st.integers(0, 100))
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
def test_random_networks(proto, widths, seed, zoo):
    """Integers as in the quantized model, tables exact, and rounding that cannot overflow in sound mode."""
    data, fresh = zoo.samples(proto, 64, seed), zoo.samples(proto, 200, seed + 1)
    quantize, rounding = widths
    stages = dict(pipelines.stages(proto, data, f"quantize{{{quantize}}}"))
    quantized, integer, fused = (stages[n] for n in ("quantize", "lower-to-integer", "fuse-tlu"))
    _, wrong, total = pipelines.off_by_more_than_one(quantized, integer, fresh)
    # Where tensors without a small common unit are added, a multiplier is off by a part of its value.
    a, b = (pipelines.outputs(m, fresh) for m in (quantized, integer))
    assert wrong <= 0.001 * total or np.abs(a - b).max() <= 0.05 * np.ptp(a)
    inside = np.flatnonzero(pipelines.overflows_on(fused, fresh) == 0)
    few = {k: v[inside] for k, v in fresh.items()}
    np.testing.assert_array_equal(pipelines.outputs(fused, few), pipelines.outputs(integer, few))
    sound = pipelines.apply(integer, f"fuse-tlu,insert-rounding{{{rounding}}}", data, range_mode="sound")
    assert pipelines.overflows(sound, 100, seed).by_node == {}


@given(proto=strategies.networks(("linear", "element-wise", "pool", "layout")), seed=st.integers(0, 100))
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
def test_without_joins_only_ties_differ(proto, seed, zoo):
    """No multiplier is rounded then: both models agree up to the order of float operations."""
    data = zoo.samples(proto, 64, seed)
    stages = dict(pipelines.stages(proto, data, "quantize{weights=5 activations=5 inputs=5}"))
    differing, wrong, total = pipelines.off_by_more_than_one(
        stages["quantize"], stages["lower-to-integer"], data
    )
    assert wrong == 0
    assert differing <= 1 + 0.001 * total


def test_the_examples(digits_mlp, digits_cnn):
    """On the networks that are shipped, and images that calibration has not seen."""
    for example in (digits_mlp, digits_cnn):
        stages = dict(
            pipelines.stages(
                onnx.load(example.model), example.calibration_data, "quantize{weights=4 inputs=6}"
            )
        )
        quantized, integer = stages["quantize"], stages["lower-to-integer"]
        differing, wrong, total = pipelines.off_by_more_than_one(quantized, integer, example.test_data)
        assert wrong == 0
        assert differing < 0.001 * total
        assert pipelines.overflows_on(stages["fuse-tlu"], example.test_data).sum() <= 1e-5 * total


def test_sound_mode_never_overflows_on_the_examples(digits_mlp):
    model = pipelines.apply(
        pipelines.imported(onnx.load(digits_mlp.model)),
        "normalize,quantize{weights=3 inputs=4},lower-to-integer,fuse-tlu,insert-rounding{bits=5}",
        digits_mlp.calibration_data,
        range_mode="sound",
    )
    assert pipelines.overflows_on(model, digits_mlp.test_data).sum() == 0
    assert pipelines.overflows(model, 300).by_node == {}


@pytest.mark.parametrize("name", ["residual_cnn", "average_pool", "activation_chain"])
def test_the_circuits_clear_evaluation(name, zoo):
    """Concrete's own, value by value: direct tables, and rounding exact and approximate."""
    proto = zoo.NETWORKS[name]()
    data = zoo.samples(proto)
    for rounding in ("", ",insert-rounding{bits=3 mode=exact}", ",insert-rounding{bits=4}"):
        if not rounding and name != "average_pool":
            continue
        model = pipelines.apply(
            pipelines.imported(proto),
            f"normalize,quantize{{weights=2 activations=2 inputs=2}},lower-to-integer,fuse-tlu{rounding}",
            data,
            range_mode="sound",
        )
        circuit = get_backend("concrete").lower(model, LowerOptions(p_error=1e-3))
        inner = run(partition(model).prologue, data)
        marks = [n.outputs[0].name for n in model.graph if n.op_type == "Encrypt"]
        found = check_against(model, circuit, {k: inner[k].astype(np.int64) for k in marks})
        assert (found.samples, found.skipped) == (64, 0)
