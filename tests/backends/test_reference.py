"""The reference backend, its overflow counts, and the registry of backends."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.checking import check_against
from onnx_fhe.backends.reference import NodeOverflow, ReferenceBackend, count_overflows
from onnx_fhe.backends.registry import backends, get_backend, register_backend, registered
from onnx_fhe.ir.dialect import DOMAIN
from onnx_fhe.ir.errors import DataError, LoweringMismatchError, PluginError, UserError
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.plugins.store import owned_by
from onnx_fhe.testing.integers import IntegerBuilder


def two_layers(keep: int | None = 3):
    b = IntegerBuilder(samples=30)
    h = b.activate(b.dense(b.encrypt("x", (6,)), 5, name="/fc1/Gemm"), keep)
    b.decrypt(b.dense(h, 3, name="/fc2/Gemm"))
    return b


def test_runs_the_integer_model() -> None:
    b = two_layers()
    circuit = ReferenceBackend().lower(b.model())
    for found in (circuit.clear(b.samples), circuit.simulate(b.samples)):
        assert found["y"].dtype == np.int64
        np.testing.assert_array_equal(found["y"], b.expected()["y"])


def test_progress_and_more_samples_than_a_batch() -> None:
    b = two_layers()
    seen: list[tuple[str, int, int]] = []
    options = LowerOptions(progress=lambda *step: seen.append(step))
    many = {k: np.tile(v, (10, 1)) for k, v in b.samples.items()}
    found = ReferenceBackend().lower(b.model(), options).clear(many)["y"]
    np.testing.assert_array_equal(found, np.tile(b.expected()["y"], (10, 1)))
    assert [s[1:] for s in seen] == [(256, 300), (300, 300)]


def test_session_does_the_steps() -> None:
    b = two_layers()
    session = ReferenceBackend().lower(b.model()).session()
    session.keygen()
    one = {k: v[:1] for k, v in b.samples.items()}
    found = session.decrypt(session.evaluate(session.encrypt(one)))
    np.testing.assert_array_equal(found["y"], b.expected()["y"][:1])
    assert session.evaluation_keys() == b""


@pytest.mark.parametrize(("keep", "factor"), [(None, 1), (3, None)])
def test_statistics_name_the_layers(keep: int | None, factor: int | None) -> None:
    b = two_layers(keep)
    stats = ReferenceBackend().lower(b.model()).statistics()
    assert [(x.name, x.operator) for x in stats.layers] == [("/fc1/Gemm", "Gemm"), ("/fc2/Gemm", "Gemm")]
    first, last = stats.layers
    removed = first.accumulator_bits - first.table_bits
    # Exact rounding takes one bootstrap for each bit it removes.
    assert first.programmable_bootstraps == 5 * (1 + removed) == stats.programmable_bootstraps
    assert (removed == 0) == (keep is None)
    assert last.table_bits == last.programmable_bootstraps == 0
    assert stats.mean_accumulator_bits == (first.accumulator_bits + last.accumulator_bits) / 2


def counted(low: int, high: int, values: np.ndarray, **lookup: object):
    """A model with one table on its input, and the overflows of ``values``."""
    b = IntegerBuilder()
    x = b.encrypt("x", values.shape[1:], low, high)
    removed = lookup.pop("removed", 0)
    if removed:
        x = b.op("RoundBits", x, domain=DOMAIN, lsbs_to_remove=removed, name="round")
    size = len(np.atleast_2d(lookup["table"])[0])  # type: ignore[call-overload]
    b.nodes[-1].name = b.nodes[-1].name
    y = b.lookup(x, **lookup)
    b.nodes[-1].name = "table"
    b.decrypt(y, low=0, high=size)
    return count_overflows(partition(b.model()).server, {"x_q": values})


def test_counts_values_outside_a_table() -> None:
    values = np.array([[2, 3, 4], [9, 1, 4], [10, 11, 2]])
    report = counted(0, 15, values, table=np.zeros((1, 8)), first=[2])
    assert report.by_node == {"table": NodeOverflow(values=3, samples=2)}
    assert (report.values, report.samples) == (3, 2)
    np.testing.assert_array_equal(report.by_sample, [0, 1, 2])


def test_counts_per_channel() -> None:
    values = np.array([[0, 10], [7, 17], [8, 9], [10, 0]])
    report = counted(0, 31, values, table=np.zeros((2, 8)), first=[0, 10])
    np.testing.assert_array_equal(report.by_sample, [0, 0, 2, 2])


def test_counts_channels_on_another_axis() -> None:
    values = np.arange(12).reshape(1, 2, 2, 3)
    report = counted(0, 31, values, table=np.zeros((3, 8)), first=[0, 1, 5], axis=3)
    expected = sum(
        not lo <= v <= lo + 7 for row in values.reshape(4, 3) for lo, v in zip([0, 1, 5], row, strict=True)
    )
    assert report.values == expected > 0


def test_before_a_rounding_the_top_half_step_is_out() -> None:
    # step 4, 4 entries: 0, 4, 8, 12; the declared range ends at 12 + 1.
    values = np.arange(17).reshape(17, 1)
    report = counted(0, 31, values, table=np.zeros((1, 4)), first=[0], step=4, removed=2)
    np.testing.assert_array_equal(np.flatnonzero(report.by_sample), [14, 15, 16])


def test_counts_at_encryption_and_decryption() -> None:
    b = IntegerBuilder()
    x = b.encrypt("x", (2,), 0, 3)
    b.decrypt(b.op("Mul", x, b.constant([2])), low=0, high=5)
    report = count_overflows(partition(b.model()).server, {"x_q": np.array([[0, 1], [2, 3], [4, 0]])})
    assert report.by_node == {"e/x": NodeOverflow(1, 1), "d/y": NodeOverflow(2, 2)}
    assert (report.values, report.samples) == (3, 2)


def test_no_overflow_on_the_samples_that_made_the_ranges() -> None:
    b = two_layers()
    report = count_overflows(partition(b.model()).server, b.samples, batch=7)
    assert (report.values, report.samples, report.by_node) == (0, 0, {})


def test_a_missing_input_is_named() -> None:
    circuit = ReferenceBackend().lower(two_layers().model())
    with pytest.raises(DataError, match="x_q"):
        circuit.clear({"x": np.zeros((1, 6))})


def test_check_against_finds_a_difference_and_skips_overflows() -> None:
    b, other = two_layers(), two_layers()
    circuit = ReferenceBackend().lower(b.model())
    values = {"x_q": np.concatenate([b.samples["x_q"], np.full((1, 6), 99)])}
    done = check_against(b.model(), circuit, values)
    assert (done.samples, done.skipped) == (30, 1)
    other.initializers[-1].raw_data = (-np.frombuffer(other.initializers[-1].raw_data, np.float32)).tobytes()
    changed = other.model()
    for node in changed.graph:
        if node.op_type == "Decrypt":
            node.attributes["low"] = node.attributes["low"].__class__(
                "low", node.attributes["low"].type, -999
            )
            node.attributes["high"] = node.attributes["high"].__class__(
                "high", node.attributes["high"].type, 999
            )
    with pytest.raises(LoweringMismatchError, match="disagree"):
        check_against(changed, circuit, b.samples)


def test_registry() -> None:
    assert list(backends())[:2] == ["reference", "concrete"]
    assert isinstance(get_backend("reference"), ReferenceBackend)
    with pytest.raises(UserError, match=r"(?s)nothing.*reference, concrete"):
        get_backend("nothing")
    with pytest.raises(UserError, match="did you mean concrete"):
        get_backend("concret")
    with pytest.raises(PluginError, match="onnx-fhe and other"):
        register_backend("reference", ReferenceBackend, owner="other")


@pytest.fixture
def no_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """No backend of a plug-in is known before a test and none is left after it."""
    monkeypatch.setattr(registered, "entries", {})


@pytest.mark.usefixtures("no_backends")
def test_a_backend_can_be_added() -> None:
    register_backend("mine", ReferenceBackend, owner="my_plugin")
    assert isinstance(get_backend("mine"), ReferenceBackend)
    assert backends()["mine"] == "my_plugin"
    with pytest.raises(PluginError, match="my_plugin and other"):
        register_backend("mine", lambda: ReferenceBackend(), owner="other")


@pytest.mark.usefixtures("no_backends")
def test_a_plugin_that_fails_leaves_no_backend_behind() -> None:
    def load() -> None:
        with owned_by("half 1.0"):
            register_backend("mine", ReferenceBackend)
            assert backends()["mine"] == "half 1.0"
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        load()
    with pytest.raises(UserError):
        get_backend("mine")


@pytest.mark.usefixtures("no_backends")
def test_a_backend_that_cannot_be_imported_is_reported() -> None:
    def broken() -> ReferenceBackend:
        raise ImportError("No module named 'gpu'")

    register_backend("broken", broken, owner="gpu_plugin")
    with pytest.raises(PluginError, match=r"(?s)'gpu'.*gpu_plugin"):
        get_backend("broken")


@pytest.mark.parametrize("errors", [{"p_error": None}, {"p_error": 0.0}, {"global_p_error": 2.0}])
def test_error_rates_are_checked(errors: dict[str, float | None]) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        LowerOptions(**errors)  # type: ignore[arg-type]
