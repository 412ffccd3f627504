"""The circuit against the network: figures, verdicts, what is refused and what is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnx_fhe
from onnx_fhe.fidelity import samples as sampled
from onnx_fhe.fidelity.causes import steps_of
from onnx_fhe.fidelity.check import check_circuit, fidelity_of, require_faithful
from onnx_fhe.fidelity.figures import FidelityWarning
from onnx_fhe.fidelity.measure import compare
from onnx_fhe.fidelity.verdict import judge, worst
from onnx_fhe.fidelity.words import headline, with_seconds, worst_output
from onnx_fhe.ir.errors import DataError, FidelityError
from onnx_fhe.ir.load import load
from onnx_fhe.ir.runtime import Session
from onnx_fhe.manifest import from_json

PIPELINE = "normalize,quantize{weights=6 activations=8},lower-to-integer,fuse-tlu"
RANDOM = np.random.default_rng(0)
VALUES = RANDOM.standard_normal((200, 3)).astype(np.float32)


def verdict(wanted: np.ndarray, found: np.ndarray, labels: np.ndarray | None = None) -> str:
    """Of one output."""
    comparison = compare({"y": wanted}, {"y": found}, labels=labels)
    findings = judge(comparison, len(wanted))
    return findings[0].verdict if findings else "good"


def dense(weights: np.ndarray, bias: np.ndarray, ending: str = "", hidden: int = 16) -> onnx.ModelProto:
    """Two layers on four inputs; ``weights`` are those of the second."""
    first = np.random.default_rng(1).standard_normal((hidden, 4)).astype(np.float32)
    last = f"y = {ending}(z)" if ending else "y = Identity(z)"
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[N,4] x) => (float[N,M] y) {'
        f" h = Gemm<transB=1>(x, w1) r = Relu(h) z = Gemm<transB=1>(r, w2, b2) {last} }}"
    )
    for name, array in (("w1", first), ("w2", weights), ("b2", bias)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = len(weights)
    return model


@pytest.fixture
def network(tmp_path):
    """A file, and calibration data for it."""
    path = tmp_path / "model.onnx"
    onnx.save(dense(RANDOM.standard_normal((3, 16)) / 4, np.zeros(3)), path)
    return path, {"x": RANDOM.standard_normal((120, 4)).astype(np.float32)}


def test_what_follows_is_good_and_a_little_noise_too():
    assert verdict(VALUES, VALUES) == "good"
    assert verdict(VALUES, VALUES + 0.05 * RANDOM.standard_normal(VALUES.shape)) == "good"
    assert verdict(VALUES, VALUES + 0.5 * RANDOM.standard_normal(VALUES.shape)) == "warning"


@pytest.mark.parametrize(
    "found",
    [np.zeros_like(VALUES), VALUES[::-1], -VALUES, VALUES + RANDOM.standard_normal(VALUES.shape)],
    ids=["constant", "shuffled", "negated", "noise"],
)
def test_what_does_not_follow_has_collapsed(found):
    assert verdict(VALUES, found) == "collapse"


@pytest.mark.parametrize("place", [0, 57, 199])
def test_one_bad_sample_makes_no_collapse_and_is_named(place):
    found = VALUES.copy()
    found[place] = 1e6
    comparison = compare({"y": VALUES}, {"y": found})
    findings = judge(comparison, len(VALUES))
    assert {f.verdict for f in findings} == {"warning"}
    assert f"sample {place} " in findings[-1].sentence
    assert min(o.r2 for o in comparison.outputs) < 0 < 0.99 < min(o.robust_r2 for o in comparison.outputs)


@pytest.mark.parametrize("outlier", [1e4, -9999.0])
def test_one_outlier_of_the_network_hides_no_collapse(outlier):
    wanted = VALUES.copy()
    wanted[3] = outlier
    found = np.where(np.arange(200)[:, None] == 3, wanted, 0.0).astype(np.float32)
    comparison = compare({"y": wanted}, {"y": found})
    assert min(o.r2 for o in comparison.outputs) > 0.99
    assert judge(comparison, 200)[0].verdict == "collapse"


def test_a_value_that_does_not_vary_must_stay():
    wanted = VALUES.copy()
    wanted[:, 1] = 2.5
    assert verdict(wanted, wanted) == "good"
    for off, expected in ((0.05, "good"), (0.2, "warning"), (129.0, "collapse")):
        found = wanted.copy()
        found[:, 1] += off
        assert verdict(wanted, found) == expected
    comparison = compare({"y": wanted}, {"y": found})
    assert worst(comparison.outputs).index == 1
    assert "'y'[1]" in headline(comparison, 200, 200)


def test_what_varies_little_beside_the_others_is_a_warning_and_no_collapse():
    wanted = VALUES * np.array([1.0, 1.0, 0.001], np.float32)
    found = wanted.copy()
    found[:, 2] = 0.0
    assert verdict(wanted, found) == "warning"


def test_a_small_output_of_its_own_is_judged_by_its_own_spread():
    # The largest value is 10,000 times what varies.
    wanted = 3 + 3e-4 * VALUES
    assert verdict(wanted, np.full_like(wanted, 3.0)) == "collapse"
    assert verdict(wanted, wanted) == "good"


def test_rounding_of_float_arithmetic_does_not_vary():
    wanted = np.full((50, 2), 7.0, np.float32)
    wanted[::2] = np.nextafter(wanted[::2], np.float32(8))
    assert verdict(wanted, np.full((50, 2), 7.0)) == "good"


def test_channels_of_an_image_are_taken_together():
    image = RANDOM.standard_normal((20, 3, 16, 16)).astype(np.float32)
    found = image.copy()
    found[:, 2] = 0
    comparison = compare({"y": image}, {"y": found})
    assert [o.index for o in comparison.outputs] == [0, 1, 2]
    assert worst(comparison.outputs).index == 2
    assert judge(comparison, 20)[0].verdict == "collapse"


def test_not_finite_values_are_far_off_and_no_error():
    found = VALUES.copy()
    found[:, 0] = np.nan
    assert verdict(VALUES, found) == "collapse"
    wanted = VALUES.copy()
    wanted[5] = np.inf
    assert verdict(wanted, VALUES) == "good"


def test_few_samples_are_never_refused():
    assert verdict(VALUES[:5], -VALUES[:5]) == "warning"


CLASSES = RANDOM.integers(0, 4, 200)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (CLASSES, "good"),
        (np.where(np.arange(200) < 8, (CLASSES + 1) % 4, CLASSES), "good"),
        (np.where(np.arange(200) < 20, (CLASSES + 1) % 4, CLASSES), "warning"),
        (RANDOM.permutation(CLASSES), "collapse"),
        (np.zeros_like(CLASSES), "collapse"),
    ],
    ids=["same", "a few", "a tenth", "shuffled", "one class"],
)
def test_classes(found, expected):
    assert verdict(CLASSES, found) == expected


def test_always_the_most_common_class_is_chance_and_rare_classes_are_no_proof():
    common = np.zeros(500, np.int64)
    common[:50] = 1
    assert verdict(common, np.zeros(500, np.int64)) == "collapse"
    common[5:50] = 0
    # 99 % are the same, and five samples say too little.
    assert verdict(common, np.zeros(500, np.int64)) == "warning"


@pytest.mark.parametrize(("others", "told"), [(0, "in no sample"), (9, "in only 9 samples"), (10, "")])
def test_classes_that_hardly_occur_are_said(others, told):
    """All predictions are equal, but hardly any could have been another."""
    classes = (np.arange(300) < others).astype(np.int64)
    found = judge(compare({"y": classes}, {"y": classes}), 300)
    assert [f.sentence for f in found if told in f.sentence] if told else not found


@pytest.mark.parametrize(
    ("wrong", "expected"), [(0.0, "good"), (0.03, "good"), (0.2, "warning"), (1.0, "collapse")]
)
def test_a_class_for_each_place_is_judged(wrong, expected):
    """An ArgMax along one of several axes: no prediction of one class a sample, but classes all the same."""
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 4, (200, 5))
    found = np.where(rng.random(wanted.shape) < wrong, rng.integers(0, 4, wanted.shape), wanted)
    assert verdict(wanted, found) == expected


def test_labels_that_show_that_nothing_is_lost_quiet_the_warning_and_others_say_how_much():
    wanted = CLASSES.copy()
    found = np.where(np.arange(200) < 20, (CLASSES + 1) % 4, CLASSES)
    assert verdict(wanted, found) == "warning"
    assert verdict(wanted, found, labels=np.where(np.arange(200) < 20, found, CLASSES)) == "good"
    comparison = compare({"y": wanted}, {"y": found}, labels=CLASSES)
    assert (comparison.classes.accuracy, comparison.classes.network_accuracy) == (0.9, 1.0)
    assert "10.0 % of the accuracy is lost" in judge(comparison, 200)[0].sentence


def test_scores_that_go_another_way_to_the_same_class_are_a_warning():
    wanted = (6 * np.eye(4)[CLASSES] + 0.5 * RANDOM.standard_normal((200, 4))).astype(np.float32)
    found = wanted.copy()
    found[:, 2] = np.where(CLASSES == 2, wanted[:, 2], -wanted[:, 2] - 20)
    known = {"labels": CLASSES}
    assert verdict(wanted, wanted, **known) == "good"
    assert verdict(wanted, found, **known) == "warning"
    # Nobody knows that these are classes.
    assert verdict(wanted / 100, found / 100) == "collapse"
    found[:, 2] = 0
    assert verdict(wanted, found, **known) == "collapse"


def test_the_headline_says_what_a_newcomer_wants_to_know():
    comparison = compare({"y": CLASSES}, {"y": CLASSES}, labels=CLASSES)
    found = fidelity_of(comparison, [], 200, 500, noise=True)
    assert with_seconds(found, 0.314) == (
        "on 200 of 500 calibration samples 100 % of the predictions are the network's; accuracy 100 % instead"
        " of 100 %; 0.31 s a sample"
    )
    comparison = compare({"y": VALUES}, {"y": VALUES + 0.1})
    text = headline(comparison, 200, 200)
    assert "on 200 calibration samples output 'y'[" in text
    assert "R^2 0.9" in text
    assert "the mean error is 0.1" in text


def test_a_collapse_is_refused_with_what_helps_unless_it_is_wanted():
    comparison = compare({"y": VALUES}, {"y": 0 * VALUES})
    found = replace(fidelity_of(comparison, judge(comparison, 200), 200, 200, noise=True), cause="noise")
    with pytest.raises(FidelityError) as error:
        require_faithful(found, accepted=False)
    assert "is the same for every sample in the circuit" in error.value.found
    assert "--p-error" in error.value.do
    assert "--accept-loss" in error.value.do
    require_faithful(found, accepted=True)
    require_faithful(replace(found, verdict="warning"), accepted=False)


def test_the_step_that_lost_most_is_found(network):
    path, data = network
    model = load(path)
    wanted = Session(model).run_batched(data)
    # A stage that negates is the one that loses everything.
    negated = load(path)
    negated.graph.initializers["w2"].const_value = ir.tensor(
        -negated.graph.initializers["w2"].const_value.numpy()
    )
    same = compare(wanted, wanted)
    wrong = compare(wanted, {"y": -wanted["y"]})
    assert steps_of({"removed": negated}, negated, data, wanted, wrong, 0)[0] == "removed"
    assert (
        steps_of({"removed": model, "quantized": negated}, negated, data, wanted, wrong, 0)[0] == "quantized"
    )
    assert steps_of({"removed": model, "quantized": model}, negated, data, wanted, wrong, 0)[0] == "rounded"
    kept = {"removed": model, "quantized": model}
    assert steps_of(kept, negated, data, wanted, wrong, 0)[0] == "rounded"
    assert steps_of(kept, model, data, wanted, wrong, 0)[0] == "noise"
    assert steps_of(kept, model, data, wanted, wrong, 60)[0] == "ranges"
    assert steps_of(kept, model, data, wanted, same, 0)[0] == ""


def test_compile_measures_and_the_artifact_remembers(network, tmp_path):
    path, data = network
    program = onnx_fhe.compile(path, data, PIPELINE, "reference")
    found = program.manifest.fidelity
    assert found.verdict == "good"
    assert (found.samples, found.given, len(found.outputs)) == (120, 120, 3)
    assert min(o.robust_r2 for o in found.outputs) > 0.9
    program.save(tmp_path / "a.fhe")
    assert onnx_fhe.Program.load(tmp_path / "a.fhe").manifest.fidelity == found


def test_samples_that_simulation_has_no_time_for_come_from_the_noise_model(network):
    path, data = network
    program = onnx_fhe.compile(path, data, PIPELINE, "reference")
    found = check_circuit(load(path), program.integer_model, program.circuit, data, seconds=0.0)
    assert (found.samples, found.simulated) == (120, 4)
    assert found.verdict == "good"
    assert program.manifest.fidelity.simulated == 120


def test_a_manifest_from_before_still_loads(network):
    path, data = network
    import json

    content = json.loads(onnx_fhe.compile(path, data, PIPELINE, "reference").manifest.to_json())
    for name in ("fidelity", "self_test", "warnings"):
        del content[name]
    manifest = from_json(json.dumps(content).encode())
    assert (manifest.fidelity, manifest.self_test, manifest.warnings) == (None, None, ())


def test_compile_refuses_a_collapse_and_writes_it_where_it_is_wanted(network):
    path, data = network
    # One bit of everything leaves nothing of values.
    few = "quantize{weights=1 activations=1 inputs=1}"
    pipeline = f"normalize,{few},lower-to-integer,fuse-tlu,insert-rounding{{bits=1}}"
    with pytest.raises(FidelityError, match="computes something else"):
        onnx_fhe.compile(path, data, pipeline, "reference")
    with pytest.warns(FidelityWarning):
        program = onnx_fhe.compile(path, data, pipeline, "reference", accept_loss=True)
    assert program.manifest.fidelity.verdict == "collapse"
    assert program.manifest.fidelity.cause == "quantized"
    assert program.manifest.warnings


def test_without_calibration_data_nothing_is_compared_and_that_is_said(network):
    path, data = network
    integer = onnx_fhe.compile(path, data, PIPELINE, "reference").integer_model
    with pytest.warns(FidelityWarning, match="not compared"):
        program = onnx_fhe.compile(integer, pipeline="analyze-bit-widths", backend="reference")
    assert program.manifest.fidelity is None


def one(data: np.ndarray) -> list[str]:
    """Warnings about one input."""
    return sampled.data_warnings({"x": data.astype(np.float32)})


def test_degenerate_data_is_said():
    typical = RANDOM.standard_normal((200, 12))
    assert one(typical) == []
    typical = typical[:100]
    assert "100 different calibration samples: up to 3 %" in one(typical)[0]
    assert "only one calibration sample" in one(typical[:1])[0]
    assert "all 30 calibration samples are the same" in one(np.repeat(typical[:1], 30, axis=0))[0]
    assert "only 10 of the 100" in one(np.tile(typical[:10], (10, 1)))[0]
    assert "only 8 calibration samples" in one(typical[:8])[0]
    half = typical.copy()
    half[::2] = np.arange(50)[:, None]
    assert any("50 of the 100 calibration samples are blank" in said for said in one(half))
    for blank in (0.0, 0.5, -3.0):
        with pytest.raises(DataError, match="same blank"):
            one(np.full((40, 12), blank))


def test_an_input_that_never_changes_is_named():
    found = sampled.data_warnings({"x": RANDOM.standard_normal((200, 3)), "mask": np.ones((200, 3))})
    assert len(found) == 1
    assert "'mask' is the same in every" in found[0]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.arange(30) % 3, ""),
        (np.arange(30) % 3 + 1, "subtract 1"),
        (np.arange(30) % 3 - 1, "whose class is not known"),
        (np.arange(30), "check that the labels"),
        ((np.arange(30) % 3) + 0.5, "no whole numbers"),
    ],
)
def test_labels_that_are_no_classes_of_the_network_are_said(network, labels, told):
    path, _ = network
    found = sampled.label_warnings(load(path), labels)
    assert told in found[0] if told else found == []


def test_labels_outside_of_the_classes_make_no_accuracy(network):
    path, data = network
    with pytest.warns(FidelityWarning, match="labels"):
        program = onnx_fhe.compile(path, {**data, "labels": np.arange(120) % 3 + 1}, PIPELINE, "reference")
    found = program.manifest.fidelity
    assert found.classes.accuracy is None
    assert "accuracy" not in found.headline


def test_the_worst_output_of_a_classifier_is_said(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(dense(RANDOM.standard_normal((3, 16)), np.zeros(3), "Softmax"), path)
    program = onnx_fhe.compile(path, {"x": RANDOM.standard_normal((80, 4))}, PIPELINE, "reference")
    assert "of the predictions are the network's" in program.manifest.fidelity.headline
    assert worst_output(program.manifest.fidelity).startswith("Of its 3 outputs 'y'[")
