"""``onnx_fhe.testing``: networks that repeat, comparisons that see what is wrong, and a short run of both."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_fhe.ir.runtime import run
from onnx_fhe.testing import STEPS, agreement, check_network, checking, ciphertexts, random_network
from onnx_fhe.testing.agreement import beyond_chance, r_squared

SEEDS = range(60)


@pytest.fixture(scope="module")
def made():
    """Networks with what they answer on their test data."""
    networks = [random_network(seed) for seed in SEEDS]
    return [(n, run(n.model, n.test)) for n in networks]


def test_a_seed_is_a_network():
    one, other, third = random_network(3), random_network(3), random_network(4)
    assert one.model.SerializeToString(deterministic=True) == other.model.SerializeToString(
        deterministic=True
    )
    for name, array in one.calibration.items():
        np.testing.assert_array_equal(array, other.calibration[name])
    assert one.model != third.model


def test_networks_are_valid_and_hold_every_step(made):
    told: set[str] = set()
    inputs, outputs = set(), set()
    for network, answers in made:
        told |= set(network.steps)
        inputs.add(len(network.model.graph.input))
        outputs.add(len(network.model.graph.output))
        onnx.checker.check_model(network.model, full_check=True)
        for array in answers.values():
            assert np.isfinite(array).all(), network.seed
    # What stands alone is rare; what the rest of the networks needs is there.
    assert len(told & set(STEPS)) >= len(STEPS) - 2
    assert {"awkward", "stray cell"} <= told
    assert inputs == {1, 2, 3}
    assert outputs >= {1, 2}


def test_outputs_vary_as_those_of_trained_networks(made):
    varying = total = 0
    for _, answers in made:
        for array in answers.values():
            if array.dtype.kind == "f":
                total += 1
                varying += 0.05 < array.std(axis=0).max() < 30
    assert varying >= 0.9 * total


def outputs(*columns: np.ndarray) -> dict[str, np.ndarray]:
    return {"y": np.stack(columns, axis=1).astype(np.float32)}


@pytest.fixture
def numbers() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(200, 2))


def test_equal_outputs_agree(numbers):
    found = agreement(outputs(*numbers.T), outputs(*numbers.T))
    assert found.worst == 1
    assert not found.lost


def test_one_lost_channel_is_found(numbers):
    a, b = numbers.T
    found = agreement(outputs(a, b), outputs(a, 0 * b))
    assert found.output == "y[1]"
    assert abs(found.worst) < 0.01
    assert found.lost


def test_a_constant_that_is_off_is_found(numbers):
    a = numbers[:, 0]
    constant = np.full_like(a, 7.0)
    assert agreement(outputs(a, constant), outputs(a, constant + 129)).constants == ("y[1]",)
    assert not agreement(outputs(a, constant), outputs(a, constant + 0.01)).lost


def test_a_channel_that_hardly_varies_is_no_measure(numbers):
    a, b = numbers.T
    assert not agreement(outputs(a, 7 + 1e-5 * b), outputs(a, 7 + 0 * b)).lost
    # Alone, however little it is, it is all that the output says.
    assert agreement(outputs(1e-3 * b), outputs(0 * b)).lost


def test_classes_are_measured_beyond_chance():
    wanted = np.arange(300) % 3
    assert beyond_chance(wanted, wanted) == 1
    assert abs(beyond_chance(wanted, np.zeros(300, int))) < 1e-9
    assert agreement({"c": wanted}, {"c": (wanted + (np.arange(300) % 2)) % 3}).lost


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"z": np.zeros((4, 1), np.float32)}, "outputs"),
        ({"y": np.zeros((4, 2), np.float32)}, "instead of float32"),
        ({"y": np.zeros((4, 1), np.float64)}, "float64"),
        ({"y": np.full((4, 1), np.nan, np.float32)}, "no number"),
    ],
)
def test_what_is_no_answer_is_told(found, told):
    with pytest.raises(ValueError, match=told):
        agreement({"y": np.zeros((4, 1), np.float32)}, found)


def test_r_squared_of_the_mean_is_nothing(numbers):
    a = numbers[:, :1]
    assert abs(r_squared(a, np.full_like(a, a.mean()))) < 1e-9


EASY = "normalize,quantize{weights=8 activations=8},lower-to-integer,fuse-tlu"
ONE_BIT = "normalize,quantize{weights=1 activations=1 inputs=1 adapt=0},lower-to-integer,fuse-tlu"
PLAIN = ("layer", "join")


def test_a_network_is_good_lost_refused_or_a_defect(monkeypatch):
    network = random_network(11, steps=PLAIN)
    good = check_network(network, EASY)
    assert good.category == "good", good
    assert good.worst > 0.9
    assert good.bootstraps > 0
    refused = check_network(network, "quantize{weights=99}")
    assert refused.category == "refused"
    assert "weights" in refused.what

    def broken(*_: object) -> None:
        raise KeyError("y")

    monkeypatch.setattr(checking, "compile_model", broken)
    defect = check_network(network, EASY)
    assert defect.category == "defect"
    assert "broken" in defect.trace


def test_what_is_lost_without_a_word_is_wrong(monkeypatch):
    network = random_network(11, steps=PLAIN)
    monkeypatch.setattr(checking, "warning", lambda _: "")
    assert check_network(network, ONE_BIT).category in {"wrong", "refused"}
    monkeypatch.setattr(checking, "warning", lambda _: "collapse")
    assert check_network(network, ONE_BIT).category in {"warned", "refused"}


# Every kind of feature and most steps are among them; `benchmarks/soak.py` goes on from there.
SHORT = range(200, 206)


def test_a_short_run_is_never_wrong_in_silence():
    found = {s: check_network(random_network(s, longest=2), "accurate") for s in SHORT}
    assert not {s: o for s, o in found.items() if o.category in {"wrong", "defect"}}
    assert sum(o.category == "good" for o in found.values()) >= len(SHORT) // 2


SMALL = (
    "normalize,quantize{weights=3 activations=4 inputs=4},lower-to-integer,fuse-tlu,insert-rounding{bits=4}"
)


@pytest.mark.encrypted
@pytest.mark.usefixtures("small_keys")
def test_a_small_network_from_float_to_ciphertexts():
    outcome = check_network(random_network(5, longest=1), SMALL, "concrete", encrypted=4)
    assert outcome.category in {"good", "warned"}, outcome
    assert outcome.encrypted.samples + outcome.encrypted.overflows == 4
    assert outcome.encrypted.values == 2 * outcome.encrypted.samples


def test_large_circuits_are_spared_the_ciphertexts():
    assert (
        check_network(random_network(5, longest=1), SMALL, "reference", 8, max_bootstraps=1).encrypted is None
    )


@pytest.mark.parametrize("off", [0, 1000])
def test_what_noise_does_not_explain_is_a_defect(monkeypatch, off):
    honest = ciphertexts.encrypted

    def lying(*given: object) -> tuple[dict[str, np.ndarray], object]:
        found, evaluations = honest(*given)
        return {k: v + off for k, v in found.items()}, evaluations

    monkeypatch.setattr(ciphertexts, "encrypted", lying)
    outcome = check_network(random_network(5, longest=1), SMALL, "reference", encrypted=8)
    found = outcome.encrypted
    assert found.samples > 0
    assert found.differing == found.far == (found.samples if off else 0)
    assert (outcome.category == "defect") is bool(off)
    assert ("samples differ on ciphertexts" in outcome.what) is bool(off)


def test_a_table_of_one_entry_holds_what_rounded_layers_give_it():
    """Behind dead channels a table has one entry; what rounding makes of their constant is another number."""
    network = random_network(10057)
    outcome = check_network(network, "balanced")
    assert (outcome.category, outcome.overflows) == ("good", 0.0)


def test_a_pool_that_reaches_one_place_only_is_a_function():
    """One element high, and a kernel of two with padding: its accumulators need no quantizer in front."""
    outcome = check_network(random_network(10151), "balanced")
    assert outcome.category in ("good", "warned"), outcome.what
