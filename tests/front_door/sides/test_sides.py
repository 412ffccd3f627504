"""Two sides with files between them: equal to a run in one process, and nothing on the wrong side."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_fhe
from onnx_fhe.ir.errors import ArtifactError, DataError, MissingPackageError, OutputError, UserError
from onnx_fhe.sides.bundle import Bundle
from onnx_fhe.sides.bundle import load as load_bundle
from onnx_fhe.sides.ciphertexts import Ciphertexts, EncryptedResults
from onnx_fhe.sides.headers import ClientHeader, EvaluationKeysHeader
from onnx_fhe.sides.keys import EvaluationKeys, secret_file

pytestmark = pytest.mark.encrypted
SAMPLES = 3


@pytest.fixture(scope="module")
def program(table):
    return table.program


@pytest.fixture(scope="module")
def data(table):
    return table.some(SAMPLES)


@pytest.fixture(scope="module")
def halves(table):
    return table.client, table.server


@pytest.fixture(scope="module")
def client(alice):
    return alice


@pytest.fixture(scope="module")
def server(halves):
    return onnx_fhe.Server.load(halves[1])


@pytest.fixture(scope="module")
def asked(client, data):
    return client.encrypt(data)


@pytest.fixture(scope="module")
def results(client, server, asked):
    return server.evaluate(asked, client.evaluation_keys())


def test_the_outputs_are_those_of_a_run_in_one_process(program, client, results, asked, data):
    expected = program.run(data).outputs
    found = client.decrypt(results, asked=asked)
    assert list(found) == list(expected)
    for name, array in expected.items():
        # Nothing is rounded, and a lookup goes wrong once in a million.
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


def test_several_calls_at_a_time_give_the_same_integers(client, server, asked, results, data):
    at_once = server.evaluate(asked, client.evaluation_keys(), jobs=2)
    assert at_once.samples == results.samples
    np.testing.assert_equal(client.decrypt(at_once), client.decrypt(results))


def test_keys_that_were_used_last_stay_ready(client, bob, halves, asked, data, monkeypatch):
    server, made = onnx_fhe.Server.load(halves[1]), []
    side = server.side(1)
    parse = side.parse_keys
    monkeypatch.setattr(side, "parse_keys", lambda content: made.append(content) or parse(content))
    mine, others = client.evaluation_keys(), bob.evaluation_keys()
    for _ in range(2):
        server.evaluate(asked, mine)
    assert made == [mine.content]
    server.evaluate(bob.encrypt(data), others)
    server.evaluate(asked, mine)
    assert made == [mine.content, others.content, mine.content]


def test_auto_measures_both_ways_as_a_run_does(client, server, table, monkeypatch):
    monkeypatch.setattr("onnx_fhe.calls.usable_cores", lambda: 2)
    told: list[int] = []
    results = server.evaluate(
        client.encrypt(table.some(10)),
        client.evaluation_keys(),
        "auto",
        lambda _, done, __: told.append(done),
    )
    assert told == list(range(11))
    assert set(server.evaluations.rates) == {1, 2}
    assert server.evaluations.jobs == max(server.evaluations.rates, key=server.evaluations.rates.get)
    assert server.evaluations.throughput > 0
    assert all(len(array) == 10 for array in client.decrypt(results).values())


def test_files_between_the_sides_hold_what_is_in_memory(client, server, asked, results, tmp_path):
    keys = client.evaluation_keys()
    keys.save(tmp_path / "e.keys")
    asked.save(tmp_path / "in.enc")
    results.save(tmp_path / "out.enc")
    assert EvaluationKeys.load(tmp_path / "e.keys") == keys
    read = Ciphertexts.load(tmp_path / "in.enc")
    assert read.calls == asked.calls
    assert read.header.request == asked.header.request
    found = EncryptedResults.load(tmp_path / "out.enc")
    np.testing.assert_equal(client.decrypt(found), client.decrypt(results))


def test_inputs_are_sent_as_seeds(asked, program):
    (call,) = {sum(map(len, c.values())) for c in asked.calls}
    numbers = 6  # a seed of 16 bytes and a number of 8 for each input
    assert call <= numbers * 24 + 400
    assert program.statistics.input_bytes > 0


def test_secret_keys_come_back_from_their_folder(halves, client, asked, results, tmp_path):
    folder = tmp_path / "keys"
    client.save_keys(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = onnx_fhe.Client.load(halves[0])
    again.load_keys(folder)
    assert again.evaluation_keys().id == client.evaluation_keys().id
    np.testing.assert_equal(again.decrypt(results), client.decrypt(results))


def test_a_folder_that_others_may_enter_gets_no_secret_keys(client, tmp_path):
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    with pytest.raises(OutputError, match="others may enter"):
        client.save_keys(folder)
    assert not list(folder.iterdir())


def test_without_keys_nothing_is_encrypted(halves, data, tmp_path):
    bare = onnx_fhe.Client.load(halves[0])
    with pytest.raises(UserError, match="no keys yet"):
        bare.encrypt(data)
    with pytest.raises(ArtifactError, match="no secret keys for this circuit"):
        bare.load_keys(tmp_path)


def test_secret_keys_are_refused_where_it_is_computed(client, tmp_path):
    client.save_keys(tmp_path / "keys")
    file = secret_file(tmp_path / "keys", client.header.circuit().parameters)
    with pytest.raises(ArtifactError) as caught:
        EvaluationKeys.load(file)
    assert "secret keys" in str(caught.value)
    assert "keep it where it was made" in str(caught.value)


def test_other_keys_are_refused_on_both_sides(bob, server, asked, results):
    with pytest.raises(DataError, match="encrypted with other keys"):
        server.evaluate(asked, bob.evaluation_keys())
    with pytest.raises(DataError, match="of other keys"):
        bob.decrypt(results)


def test_clients_of_a_circuit_without_tables_are_told_apart(circuit):
    """Such a circuit needs no evaluation keys: those of all clients are the same bytes."""
    one, two = circuit.new_client(), circuit.new_client()
    keys, others = one.evaluation_keys(), two.evaluation_keys()
    assert keys.content == others.content
    assert keys.id != others.id
    asked = one.encrypt(circuit.some(1))
    server = onnx_fhe.Server.load(circuit.server)
    with pytest.raises(DataError, match="encrypted with other keys"):
        server.evaluate(asked, others)
    results = server.evaluate(asked, keys)
    with pytest.raises(DataError, match="of other keys"):
        two.decrypt(results)
    one.decrypt(results)


def test_results_of_another_request_are_refused(client, results, data):
    again = client.encrypt(data)
    with pytest.raises(DataError, match="another request"):
        client.decrypt(results, asked=again)


def test_data_that_does_not_fit_is_refused_by_name(client):
    with pytest.raises(DataError, match="wrong shape"):
        client.encrypt({"input": np.zeros((2, 7), np.float32)})


def test_values_out_of_range_are_clipped_and_counted(client, data, program):
    assert client.encrypt(data)
    assert client.clip == program.run(data).clip
    client.encrypt({k: 100 * np.ones_like(v) for k, v in data.items()})
    assert client.clip.samples == SAMPLES


@pytest.mark.parametrize("side", [0, 1])
def test_every_flipped_bit_of_a_half_is_found(halves, side, tmp_path):
    content = bytearray(halves[side].read_bytes())
    load = (onnx_fhe.Client, onnx_fhe.Server)[side].load
    random = np.random.default_rng(side)
    bad = tmp_path / "bad"
    for place in random.integers(0, len(content), 40):
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(8))
        bad.write_bytes(changed)
        try:
            load(bad)
        except ArtifactError:
            continue
        else:
            # Zip repeats names, sizes and times that nobody reads; the parts are what they were.
            with zipfile.ZipFile(bad) as changed_zip, zipfile.ZipFile(halves[side]) as whole:
                assert {n: changed_zip.read(n) for n in whole.namelist()} == {
                    n: whole.read(n) for n in whole.namelist()
                }


def test_a_flipped_bit_of_keys_or_ciphertexts_is_found(client, asked, tmp_path):
    for made, load in ((client.evaluation_keys(), EvaluationKeys.load), (asked, Ciphertexts.load)):
        content = bytearray(made.to_bytes())
        content[len(content) // 2] ^= 4
        with pytest.raises(ArtifactError):
            load(bytes(content))


def test_keys_that_say_they_are_others_are_refused(client, asked, server):
    keys = client.evaluation_keys()
    header = EvaluationKeysHeader(parameters=keys.parameters, keys="0" * 64)
    with pytest.raises(ArtifactError, match="other keys than it says"):
        EvaluationKeys.load(Bundle(header, {"keys": keys.content}).to_bytes())


def test_a_newer_format_is_refused(halves, tmp_path):
    with zipfile.ZipFile(halves[0]) as whole:
        parts = {n: whole.read(n) for n in whole.namelist()}
    parts["header.json"] = re.sub(rb'"format": 1', b'"format": 99', parts["header.json"])
    with zipfile.ZipFile(tmp_path / "new.client", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ArtifactError, match="newer onnx-fhe"):
        onnx_fhe.Client.load(tmp_path / "new.client")


def test_the_client_half_holds_no_weight_of_the_encrypted_part(halves, program):
    weights = [numpy_helper.to_array(i) for i in onnx.load(halves[0].with_name("net.onnx")).graph.initializer]
    quantized = [
        v.const_value.numpy()
        for v in program.integer_model.graph.initializers.values()
        if v.const_value is not None and v.const_value.size > 4
    ]
    with zipfile.ZipFile(halves[0]) as archive:
        content = b"".join(archive.read(n) for n in archive.namelist())
        names = archive.namelist()
    assert not any("server/" in n for n in names)
    for array in (*weights, *quantized):
        rows = array.reshape(len(array), -1) if array.ndim > 1 else array[np.newaxis]
        for row in rows:
            if row.size >= 4 and len(np.unique(row)) > 2:
                assert row.tobytes() not in content


def test_the_server_half_holds_neither_prologue_nor_epilogue(halves):
    with zipfile.ZipFile(halves[1]) as archive:
        assert not [n for n in archive.namelist() if n.endswith(".onnx")]


def test_neither_side_imports_the_compiler(halves, tmp_path):
    script = (
        "import sys, onnx_fhe\n"
        f"client = onnx_fhe.Client.load({str(halves[0])!r})\n"
        "keys = client.keygen()\n"
        f"server = onnx_fhe.Server.load({str(halves[1])!r})\n"
        "import numpy as np\n"
        "asked = client.encrypt({'input': np.zeros((1, 6), np.float32)})\n"
        "client.decrypt(server.evaluate(asked, keys))\n"
        "heavy = ('torch', 'onnx', 'onnx_ir', 'onnxscript', 'networkx', 'concrete.fhe', 'optuna', 'jinja2')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_client_half_with_too_little_noise_makes_no_keys(halves):
    honest = load_bundle(halves[0], ClientHeader)
    place = "circuits/1/client/specs.json"
    weak = re.sub(rb'("variance": )[\d.e+-]+', rb"\g<1>1e-36", honest.parts[place])
    bundle = Bundle(honest.header, {**honest.parts, place: weak})
    with pytest.raises(ArtifactError, match="weaker than it claims"):
        onnx_fhe.Client.load(bundle.to_bytes()).keygen()


def test_the_same_samples_are_never_encrypted_alike(halves, client, data):
    def words(asked):
        return [v[i : i + 8] for c in asked.calls for v in c.values() for i in range(0, len(v) - 7, 8)]

    once, again = words(client.encrypt(data)), words(client.encrypt(data))
    # What says which kind of value it is, in front, is the same in each call; seeds and values never.
    frame = len(once) - SAMPLES * 6 * 3
    assert len(set(once) & set(again)) <= frame / SAMPLES
    assert len(set(once)) >= SAMPLES * 6 * 3


def test_a_server_without_a_linker_says_what_to_install(halves, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNX_FHE_CACHE", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackageError, match="binutils"):
        onnx_fhe.Server.load(halves[1]).prepare()


def test_a_client_half_that_calls_met_errors_shareable_is_refused(halves, tmp_path):
    honest = load_bundle(halves[0], ClientHeader)
    claimed = Bundle(replace(honest.header, results="shared"), honest.parts).to_bytes()
    with pytest.raises(ArtifactError, match="errors that can be met"):
        onnx_fhe.Client.load(claimed)
