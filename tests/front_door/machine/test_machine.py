"""Profiles of machines, and predictions made with them."""

from __future__ import annotations

import dataclasses
import json

import pytest

from onnx_fhe.analysis.cost.bootstrap import bootstrap_of
from onnx_fhe.analysis.cost.cost import CostEstimate
from onnx_fhe.analysis.cost.lookup_cost import LayerCost
from onnx_fhe.analysis.cost.parameters import BootstrapParameters, KeyswitchParameters, Step, key_bytes
from onnx_fhe.analysis.cost.timing import Measured, Timings, default_timings
from onnx_fhe.backends.statistics import CircuitStatistics
from onnx_fhe.cli.app import main
from onnx_fhe.ir.errors import DataError
from onnx_fhe.machine import Profile, cache_file, predict, this_machine


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_the_default_says_that_it_is_one():
    assert this_machine() is Profile.default()
    assert "default" in Profile.here().describe()
    assert "calibrate-cost" in Profile.here().describe()


def test_a_profile_survives_its_file(tmp_path):
    mine = dataclasses.replace(Profile.default(), source="measured", cores=7)
    mine.save(tmp_path / "machine.json")
    assert Profile.load(tmp_path / "machine.json") == mine
    mine.save(cache_file())
    assert Profile.here() == mine
    assert "7 cores" in mine.describe()


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    assert cache_file() == tmp_path / "cache" / "onnx-fhe" / "machine.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_file().is_absolute()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.update(format=2), "2"),
        (lambda d: d.pop("format"), "no format"),
        (lambda d: d.update(cores=0), "cores"),
        (lambda d: d.update(measured=[]), "measured"),
        (lambda d: d.update(loop_efficiency=1.5), "loop_efficiency"),
        (lambda d: d.update(keygen_seconds=-1.0), "keygen_seconds"),
        (lambda d: d["measured"][0].update(milliseconds=0), "measured.0"),
        (lambda d: d["measured"][0]["bootstrap"].update(level=-1), "measured.0"),
        (lambda d: d["measured"][0].update(milliseconds="fast"), "milliseconds"),
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path, change, found):
    file = tmp_path / "machine.json"
    Profile.default().save(file)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as raised:
        Profile.load(file)
    assert found in raised.value.found
    # In the cache such a file counts as none.
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(json.dumps(content))
    assert this_machine() is Profile.default()


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{" * 2000])
def test_what_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "machine.json").write_bytes(content)
    with pytest.raises(DataError):
        Profile.load(tmp_path / "machine.json")


def test_measured_sets_are_met_and_others_lie_between():
    timings = default_timings()
    for known in timings.measured:
        found = timings.milliseconds(known.bootstrap, known.keyswitch)
        assert found == pytest.approx(known.milliseconds, rel=0.15)
    by_level = [
        timings.milliseconds(
            BootstrapParameters(1024, 2, 780, level, 15), KeyswitchParameters(2048, 780, 4, 4)
        )
        for level in range(1, 8)
    ]
    assert by_level == sorted(by_level)


def test_one_measured_set_is_enough():
    known = bootstrap_of(4)
    timings = Timings((Measured(known.parameters, known.keyswitch, 20.0, known.complexity),))
    assert timings.milliseconds(known.parameters, known.keyswitch) == pytest.approx(20)
    wider = bootstrap_of(6)
    assert timings.milliseconds(wider.parameters, wider.keyswitch) > 30


def test_keys_are_counted_once():
    known = bootstrap_of(4)
    step = Step(known.parameters, known.keyswitch, 10)
    assert key_bytes((step, step)) == key_bytes((step,))
    assert sum(key_bytes((step,), sent=True)) < sum(key_bytes((step,))) / 4


def layers(*counts: int, bits: int = 4) -> CostEstimate:
    each = bootstrap_of(bits).complexity
    return CostEstimate(
        tuple(LayerCost("a", bits, n, n * each, 8.0, n) for n in counts), inputs=10, outputs=2
    )


def test_cores_share_the_lookups_of_one_layer():
    profile = dataclasses.replace(
        Profile.default(), loop_efficiency=1.0, job_efficiency=0.5, call_seconds=0.0
    )
    one, four = (predict(layers(8, 2), profile, cores=c) for c in (1, 4))
    assert one.seconds == one.core_seconds == four.core_seconds
    # Three rounds of at most four lookups, instead of ten lookups.
    assert four.seconds == pytest.approx(one.seconds * 3 / 10)
    assert one.throughput == pytest.approx(1 / one.seconds)
    assert four.throughput == pytest.approx(2 / one.seconds)
    assert one.key_bytes < one.expanded_key_bytes < one.memory_bytes


def test_more_bits_cost_more_of_everything():
    found = [predict(layers(10, bits=b), Profile.default(), cores=1) for b in range(4, 9)]
    for name in ("seconds", "complexity", "keygen_seconds"):
        values = [getattr(p, name) for p in found]
        assert values == sorted(values), name


def test_a_circuit_of_one_table_is_compiled_once():
    one, two = (predict(e, Profile.default()).compile_seconds for e in (layers(10), layers(5, 5)))
    assert two == pytest.approx(2 * one)


def test_samples_of_one_call_share_what_a_call_takes():
    known = bootstrap_of(4)
    found = CircuitStatistics(
        10, 1e9, 4, 8, 8.0, 1e-5, None, (), 1000, 100, 50, 20, 1,
        (Step(known.parameters, known.keyswitch, 10),), 640,
    )  # fmt: skip
    profile = dataclasses.replace(Profile.default(), call_seconds=0.05)
    one, eight = (predict(found, profile, cores=1, batch=b) for b in (1, 8))
    assert eight.seconds == pytest.approx(8 * one.seconds - 7 * 0.05)
    assert eight.throughput == pytest.approx(8 / eight.seconds)
    assert (eight.bootstraps, eight.input_bytes) == (80, 400)
    assert eight.key_bytes == one.key_bytes


def test_command_line_shows_and_refuses(capsys, tmp_path):
    with pytest.raises(SystemExit) as done:
        main(["calibrate-cost", "--show", "--json"])
    assert done.value.code == 0
    assert json.loads(capsys.readouterr().out)["profile"]["source"] == "default"
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(SystemExit) as done:
        main(["inspect", "examples/digits_mlp.onnx", "--machine", str(tmp_path / "bad.json")])
    assert done.value.code == 1
    assert "no profile of a machine" in capsys.readouterr().err
