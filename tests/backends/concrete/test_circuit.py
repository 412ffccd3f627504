"""Circuits of the Concrete backend: what they cost, what is refused, saving, and real encryption."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnx_fhe
from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.checking import check_against
from onnx_fhe.backends.registry import get_backend
from onnx_fhe.ir.dialect import DOMAIN
from onnx_fhe.ir.errors import (
    ArtifactError,
    DataError,
    LimitError,
    LoweringMismatchError,
    OutputError,
    UserError,
)
from onnx_fhe.testing.integers import IntegerBuilder

SURE = LowerOptions(p_error=1e-10)
"""So few errors that no test ever sees one."""


def backend() -> Any:
    return get_backend("concrete")


def network(keep: int | None = 4, mode: str = "approximate", width: int = 8, hidden: int = 6) -> Any:
    b = IntegerBuilder(samples=12)
    h = b.activate(b.dense(b.encrypt("x", (width,)), hidden, name="/fc.1/Gemm"), keep, mode)
    b.decrypt(b.dense(h, 3, name="/fc.2/Gemm"))
    return b


def tables_of(circuit: Any) -> list[int]:
    """Bits of each table input as the compiled program has them."""
    lines = [x for x in circuit.mlir.splitlines() if "lookup_table" in x]
    return [int(re.search(r"FHE\.es?int<(\d+)>", x.split(":", 1)[1]).group(1)) for x in lines]  # type: ignore[union-attr]


@pytest.mark.parametrize("keep", [3, 4, 5])
def test_approximate_rounding_costs_one_bootstrap_a_neuron(keep: int) -> None:
    """Eight-bit accumulators, no clipping bootstrap, tables of exactly the kept bits."""
    b = IntegerBuilder(samples=4)
    h = b.dense(b.encrypt("x", (64,)), 32)
    offset = b.op("Add", h, b.constant([128]))
    step = 2 ** (8 - keep)
    rounded = b.op("RoundBits", offset, domain=DOMAIN, lsbs_to_remove=8 - keep, mode="approximate")
    table = b.rng.integers(0, 8, (32, 2**keep))
    b.decrypt(b.lookup(rounded, table, np.zeros(32), step), low=0, high=7)
    circuit = backend().lower(b.model())
    stats = circuit.statistics()
    assert stats.programmable_bootstraps == 32
    assert tables_of(circuit) == [keep]
    assert (stats.max_table_bits, stats.max_accumulator_bits) == (keep, 8)
    # Operations a bootstrap takes; FACTS of the engine, not of this machine.
    assert stats.complexity / 32 < {3: 60e6, 4: 80e6, 5: 105e6}[keep]


def test_exact_rounding_costs_one_more_for_each_bit() -> None:
    circuit = backend().lower(network(mode="exact").model(), LowerOptions(parameter_strategy="mono"))
    layer = circuit.statistics().layers[0]
    removed = layer.accumulator_bits - layer.table_bits
    assert removed > 0
    assert layer.programmable_bootstraps == 6 * (1 + removed)


def test_layers_are_named_after_the_linear_operators() -> None:
    b = IntegerBuilder()
    h = b.activate(b.conv(b.encrypt("x", (1, 4, 4)), 2, (3, 3), name="/conv.0/Conv"), 3)
    other = b.lookup(h, b.rng.integers(0, 4, (1, 8)), [0])
    b.nodes[-1].name = "/alone"
    h = b.activate(b.op("Add", h, other, name="/add"), 3)
    b.decrypt(b.dense(b.op("Flatten", h), 3, name="/fc"))
    circuit = backend().lower(b.model(), LowerOptions(parameter_strategy="mono"))
    stats = circuit.statistics()
    assert [(x.name, x.operator) for x in stats.layers] == [
        ("/conv.0/Conv", "Conv"),
        ("/alone", "TableLookup"),
        ("/add", "Add"),
        ("/fc", "Gemm"),
    ]
    assert sum(x.programmable_bootstraps for x in stats.layers) == stats.programmable_bootstraps
    assert stats.layers[-1].programmable_bootstraps == 0
    assert max(tables_of(circuit)) == stats.max_table_bits
    assert stats.max_accumulator_bits == max(x.accumulator_bits for x in stats.layers)
    assert stats.mean_accumulator_bits == np.mean([x.accumulator_bits for x in stats.layers])


def test_a_narrow_table_is_not_pulled_up_by_a_wide_output() -> None:
    b = IntegerBuilder()
    h = b.activate(b.dense(b.encrypt("x", (4,), high=1), 2, 1))
    low = b.op("Mul", h, b.constant(100))
    b.decrypt(low, "wide")
    b.decrypt(b.lookup(h, b.rng.integers(0, 4, (1, 8)), [0]), "narrow")
    circuit = backend().lower(b.model(), LowerOptions(parameter_strategy="mono"))
    assert max(tables_of(circuit)) == 3
    assert circuit.statistics().max_accumulator_bits >= 10


def test_finer_parameters_are_taken_where_they_pay() -> None:
    b = IntegerBuilder(samples=40)
    h = b.activate(b.dense(b.encrypt("x", (32,)), 24), 4, "approximate")
    h = b.activate(b.dense(h, 24), 4, "approximate")
    b.decrypt(b.dense(h, 4), low=-512, high=511)
    model = b.model()
    costs = {
        s: backend().lower(model, LowerOptions(parameter_strategy=s)).statistics()
        for s in ("auto", "mono", "multi", "multi-norm2")
    }
    assert costs["multi-norm2"].complexity < 0.95 * costs["multi"].complexity
    assert costs["auto"].complexity == costs["multi-norm2"].complexity
    assert costs["auto"].parameter_sets == 2 > costs["mono"].parameter_sets
    assert costs["mono"].evaluation_key_bytes < costs["auto"].evaluation_key_bytes


def test_the_error_rate_reaches_concrete() -> None:
    model = network().model()
    strict, loose = (
        backend().lower(model, LowerOptions(p_error=p, parameter_strategy="mono")).statistics()
        for p in (1e-8, 1e-2)
    )
    assert loose.complexity < strict.complexity
    assert strict.p_error is not None
    assert strict.p_error <= 1e-8
    whole = backend().lower(model, LowerOptions(p_error=None, global_p_error=1e-3)).statistics()
    assert whole.global_p_error is not None
    assert whole.global_p_error <= 1e-3


def test_a_security_level_that_concrete_lacks() -> None:
    with pytest.raises(UserError, match="128 or 132"):
        backend().lower(network().model(), LowerOptions(security_level=80))


def wide(bits: int, removed: int = 0, step: int = 1) -> Any:
    """A table of so many bits; without rounding an entry may hold for ``step`` accumulators."""
    b = IntegerBuilder()
    h = b.dense(b.encrypt("x", (2,)), 1, name="/fc")
    if removed:
        h = b.op("RoundBits", h, domain=DOMAIN, lsbs_to_remove=removed, mode="approximate")
    step <<= removed
    b.decrypt(b.lookup(h, np.arange(2**bits // step)[None] % 4, [-(2 ** (bits - 1))], step), low=0, high=3)
    return b


LIMITS = [
    (lambda: wide(17), "17 bits", "insert-rounding"),
    (lambda: wide(21, step=2**6), "21 bits", "insert-rounding"),
    (lambda: wide(12, removed=3), "9 bits", "fewer bits"),
    (lambda: wide(25, removed=20), "25 bits", "prune"),
]


@pytest.mark.parametrize(("make", "found", "do"), LIMITS)
def test_limits_name_the_layer_and_the_way_out(make: Any, found: str, do: str) -> None:
    with pytest.raises(LimitError) as caught:
        backend().lower(make().model())
    error = caught.value
    assert (error.where.node, error.where.op) == ("/fc", "Gemm")
    assert found in error.found
    assert error.allowed
    assert do in error.do


def test_an_output_too_wide_names_its_layer() -> None:
    b = IntegerBuilder()
    b.decrypt(b.dense(b.encrypt("x", (2,)), 2, name="/last"), low=-(2**24), high=2**24)
    with pytest.raises(LimitError, match="26 bits") as caught:
        backend().lower(b.model())
    assert caught.value.where.node == "/last"


def test_no_parameters_names_the_widest_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    b = IntegerBuilder()
    h = b.lookup(b.encrypt("x", (64,)), [np.arange(8)], [0])
    h = b.lookup(b.dense(h, 8, 100_000, name="/wide"), [np.arange(256) % 8], [0])
    b.decrypt(b.dense(h, 4, 100_000), low=0, high=2**19)
    with pytest.raises(LimitError, match="no parameters") as caught:
        backend().lower(b.model())
    assert caught.value.where.node == "/wide"
    assert "8 bits" in caught.value.found
    assert list(tmp_path.iterdir()) == []


def test_a_difference_is_an_error() -> None:
    b = network(None, width=3)
    circuit = backend().lower(b.model(), LowerOptions(parameter_strategy="mono"))
    node = next(i for i, n in enumerate(b.nodes) if n.op_type == "TableLookup")
    name = b.nodes[node].input[1]
    table = next(i for i in b.initializers if i.name == name)
    changed = np.frombuffer(table.raw_data, np.float32).copy()
    table.raw_data = (7 - changed).tobytes()
    for attribute in b.nodes[-1].attribute:
        attribute.i = {"low": -999, "high": 999}[attribute.name]
    with pytest.raises(LoweringMismatchError, match="the circuit has"):
        check_against(b.model(), circuit, b.samples)


def test_values_are_checked_before_concrete_sees_them() -> None:
    b = IntegerBuilder()
    b.decrypt(b.dense(b.encrypt("x", (3,), high=3), 2))
    circuit = backend().lower(b.model())
    session = circuit.session()
    good = np.zeros((1, 3), np.int64)
    for values, reason in [
        ({"y": good}, "missing"),
        ({"x_q": good[0]}, "shape"),
        ({"x_q": good + 9}, r"0 \.\. 3"),
        ({"x_q": good - 1}, r"0 \.\. 3"),
        ({"x_q": good + 0.5}, "integers"),
        ({"x_q": good + np.nan}, "integers"),
    ]:
        with pytest.raises(DataError, match=reason):
            session.encrypt(values)
    with pytest.raises(DataError, match=r"0 \.\. 3"):
        circuit.clear({"x_q": np.full((2, 3), 4)})


def test_floats_that_hold_integers_will_do() -> None:
    b = network()
    circuit = backend().lower(b.model(), LowerOptions(parameter_strategy="mono"))
    found = circuit.clear({k: v.astype(np.float32) for k, v in b.samples.items()})
    np.testing.assert_array_equal(found["y"], b.expected()["y"])
    assert found["y"].dtype == np.int64


def test_progress_counts_compilations_and_samples() -> None:
    seen: list[tuple[str, int, int]] = []
    b = IntegerBuilder(samples=3)
    h = b.activate(b.activate(b.dense(b.encrypt("x", (3,)), 2), 3), 3)
    b.decrypt(h)
    circuit = backend().lower(b.model(), LowerOptions(progress=lambda *step: seen.append(step)))
    circuit.clear(b.samples)
    assert seen == [("compile", i, 2) for i in range(3)] + [("clear", i, 3) for i in range(4)]


def test_lowering_in_another_thread() -> None:
    b, results = network(), []
    thread = threading.Thread(target=lambda: results.append(backend().lower(b.model())))
    thread.start()
    thread.join()
    assert results[0].statistics().programmable_bootstraps == 6


def test_round_trip_through_files(tmp_path: Path) -> None:
    b = network(None, width=2)
    model = b.model()
    circuit = backend().lower(model, LowerOptions(p_error=1e-9))
    circuit.save(tmp_path / "circuit")
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert written == [
        "circuit/client/ports.json",
        "circuit/client/specs.json",
        "circuit/server/circuit.json",
        "circuit/server/circuit.mlir",
    ]
    for file in written:
        assert str(Path(__file__).parents[3]) not in (tmp_path / file).read_text()
    loaded = backend().load(tmp_path / "circuit")
    assert loaded.statistics() == circuit.statistics()
    np.testing.assert_array_equal(loaded.simulate(b.samples)["y"], b.expected()["y"])
    with pytest.raises(ArtifactError, match="without its integer model"):
        loaded.clear(b.samples)
    with_model = backend().load(tmp_path / "circuit", model)
    np.testing.assert_array_equal(with_model.clear(b.samples)["y"], b.expected()["y"])


def test_damaged_files_are_named(tmp_path: Path) -> None:
    circuit = backend().lower(network().model(), LowerOptions(parameter_strategy="mono"))
    circuit.save(tmp_path)
    ports = tmp_path / "client" / "ports.json"
    whole = ports.read_text()
    for content, reason in [
        ("{}", "damaged"),
        (whole.replace('"low": 0', '"low": "none"'), "damaged"),
        (json.dumps(json.loads(whole) | {"format": 99}), "99"),
    ]:
        ports.write_text(content)
        with pytest.raises(ArtifactError, match=reason) as caught:
            backend().load(tmp_path)
        assert caught.value.where.file == "ports.json"
    ports.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        backend().load(tmp_path)


def test_parameters_of_another_version_are_noticed(tmp_path: Path) -> None:
    circuit = backend().lower(network().model(), LowerOptions(parameter_strategy="mono"))
    circuit.save(tmp_path)
    specs = tmp_path / "client" / "specs.json"
    specs.write_text(re.sub(r'"polynomialSize": ?\d+', '"polynomialSize": 64', specs.read_text()))
    with pytest.raises(ArtifactError, match="compile the model again"):
        backend().load(tmp_path).session()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    circuit = backend().lower(network().model(), LowerOptions(parameter_strategy="mono"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        circuit.save(tmp_path / "file")


def test_parameters_are_those_of_the_circuit_that_runs() -> None:
    """They are looked for without the parallel loops of what runs, which take longer to compile."""
    model = network().model()
    parallel, alone = (backend().lower(model, LowerOptions(loop_parallelize=on)) for on in (True, False))
    assert parallel.statistics() == alone.statistics()
    for circuit, loops in ((parallel, True), (alone, False)):
        assert circuit.recorded()[1].loop_parallelize is loops
        circuit.session()  # refuses a program of other parameters


@pytest.mark.encrypted
@pytest.mark.parametrize("loaded", [False, True])
def test_encrypted(tmp_path: Path, loaded: bool) -> None:
    """Two inputs, per-channel tables, a signed and a rounded output; keys and ciphertexts are real."""
    b = IntegerBuilder(samples=3)
    left, right = b.encrypt("left", (3,), high=3), b.encrypt("right", (2,), low=-2, high=1)
    h = b.activate(b.op("Sub", b.dense(left, 2, 1), right), low=-3, high=3)
    h = b.dense(h, 2)
    b.decrypt(h, "raw")
    b.decrypt(b.op("RoundBits", h, domain=DOMAIN, lsbs_to_remove=2, mode="approximate"), "rounded")
    # The keys of the one that was loaded are sent compressed: to expand them takes as long as to make them.
    circuit = backend().lower(b.model(), replace(SURE, compress_keys=loaded))
    if loaded:
        circuit.save(tmp_path)
        circuit = backend().load(tmp_path)
    assert circuit.statistics().programmable_bootstraps == 2
    session = circuit.session()
    session.keygen()
    expected = b.expected()
    for i in range(b.count):
        sample = {k: v[i : i + 1] for k, v in b.samples.items()}
        found = session.decrypt(session.evaluate(session.encrypt(sample)))
        np.testing.assert_array_equal(found["raw"], expected["raw"][i : i + 1])
        assert set(np.abs(found["rounded"] - expected["rounded"][i]).ravel()) <= {0, 4}
    assert len(session.evaluation_keys()) > 1_000_000


@pytest.mark.encrypted
def test_encrypted_convolution_with_rounding() -> None:
    b = IntegerBuilder(samples=1)
    h = b.conv(b.encrypt("x", (1, 2, 2), high=3), 1, (2, 2), pads=[1, 0, 0, 1])
    h = b.activate(h, 3, "exact")
    b.decrypt(b.op("Flatten", h))
    # To expand keys that were sent compressed, as by default, takes as long as to make them.
    circuit = backend().lower(b.model(), replace(SURE, parameter_strategy="mono", compress_keys=False))
    session = circuit.session()
    session.keygen()
    found = session.decrypt(session.evaluate(session.encrypt(b.samples)))
    np.testing.assert_array_equal(found["y"], b.expected()["y"])


@pytest.mark.encrypted
def test_keys_are_fresh_each_time() -> None:
    b = IntegerBuilder()
    b.decrypt(b.lookup(b.encrypt("x", (1,), high=1), [[1, 0]], [0]))  # the smallest keys that bootstrap
    session = backend().lower(b.model(), LowerOptions(parameter_strategy="mono")).session()
    session.keygen()
    first = session.evaluation_keys()
    session.keygen()
    assert session.evaluation_keys() != first


# Whether a circuit is that of its integer model


def saved(model: Any, folder: Path) -> Path:
    """Files of a circuit."""
    backend().lower(model, LowerOptions(parameter_strategy="mono")).save(folder)
    return folder


def edited(folder: Path, **changes: object) -> None:
    """Change the server's settings."""
    file = folder / "server" / "circuit.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def foreign(b: Any) -> Any:
    """The network of ``b`` with one weight changed."""
    model = b.model()
    value = next(n for n in model.graph if n.op_type == "Gemm").inputs[1]
    weights = value.const_value.numpy().copy()
    weights.flat[0] += 1 if weights.flat[0] < 1 else -1
    value.const_value = ir.tensor(weights, name=value.name)
    return model


@pytest.mark.parametrize("use", ["simulate", "session"])
def test_the_circuit_of_another_model_is_refused(use: str, tmp_path: Path) -> None:
    b = network()
    circuit = backend().load(saved(foreign(b), tmp_path), b.model())
    with pytest.raises(ArtifactError, match="not that of its integer model"):
        circuit.simulate(b.samples) if use == "simulate" else circuit.session()


def test_an_older_circuit_in_other_words_is_made_anew(tmp_path: Path) -> None:
    """Whoever claims an older version gets what the integer model computes, too."""
    b = network(mode="exact")  # approximate rounding differs in a quarter of the samples by itself
    folder = saved(foreign(b), tmp_path)
    edited(folder, maker="")
    circuit = backend().load(folder, b.model())
    fresh = backend().lower(b.model(), SURE)
    check_against(b.model(), circuit, b.samples)
    for name, wanted in fresh.clear(b.samples).items():
        np.testing.assert_array_equal(circuit.simulate(b.samples)[name], wanted)
    assert circuit.mlir != circuit._run.mlir


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("settings", {"p_error": 2.0}),
        ("settings", {"p_error": None}),
        ("settings", {"security_level": 1}),
        ("inputs", {"unit": 0}),
        ("inputs", {"low": 5, "high": 1}),
        ("inputs", {"shape": []}),
        ("outputs", {"shape": [1, -3]}),
    ],
)
def test_settings_and_ports_that_cannot_be_are_refused(
    part: str, change: dict[str, Any], tmp_path: Path
) -> None:
    folder = saved(network().model(), tmp_path)
    if part == "settings":
        settings = json.loads((folder / "server" / "circuit.json").read_text())["settings"]
        edited(folder, settings=settings | change)
    else:
        file = folder / "client" / "ports.json"
        plain = json.loads(file.read_text())
        plain[part][0] |= change
        file.write_text(json.dumps(plain))
    with pytest.raises(ArtifactError, match="damaged"):
        backend().load(folder)


@pytest.mark.parametrize("file", ["server/circuit.mlir", "client/specs.json"])
def test_a_damaged_file_is_refused_by_name(file: str, tmp_path: Path) -> None:
    b = network()
    folder = saved(b.model(), tmp_path)
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])
    with pytest.raises(ArtifactError):
        backend().load(folder, b.model()).session()


def test_a_manifest_that_says_something_else_is_refused(zoo: Any, tmp_path: Path) -> None:
    proto = zoo.mlp()
    onnx.save(proto, tmp_path / "mlp.onnx")
    data = zoo.samples(proto)
    pipeline = "quantize{weights=3 activations=3 inputs=3},lower-to-integer,fuse-tlu,insert-rounding{bits=4}"
    program = onnx_fhe.compile(tmp_path / "mlp.onnx", data, pipeline, check_samples=0, accept_loss=True)
    program.save(tmp_path / "mlp.fhe")
    assert onnx_fhe.Program.load(tmp_path / "mlp.fhe").simulate(data, limit=2).samples == 2
    for change in ({"p_error": 1e-9}, {"statistics": replace(program.statistics, complexity=1.0)}):
        program.manifest = replace(program.manifest, **change)
        program.save(tmp_path / "other.fhe")
        with pytest.raises(ArtifactError, match="its manifest describes"):
            onnx_fhe.Program.load(tmp_path / "other.fhe").simulate(data, limit=1)
