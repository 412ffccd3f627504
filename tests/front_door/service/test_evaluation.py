"""Encrypted inputs through a service in this process: what is computed, and what is refused."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from services import bearer

from onnx_fhe.ir.errors import ArtifactError
from onnx_fhe.sides.ciphertexts import EncryptedResults

pytestmark = pytest.mark.encrypted
SAMPLES = 'onnx_fhe_samples_total{model="net"} '


@pytest.fixture(scope="module")
def ready(serving_module, linear):
    service = serving_module(workers=1)
    assert service.put(linear).status_code == 201
    return service


def test_results_are_those_of_a_run_without_a_service(ready, linear, circuit):
    def counted() -> float:
        page = ready.http.get("/metrics", headers=bearer("alice")).text
        return sum(float(x.split()[-1]) for x in page.splitlines() if x.startswith(SAMPLES))

    asked = linear.encrypt(circuit.some(5))
    before, lines = counted(), len(ready.lines)
    answer = ready.evaluate(asked.to_bytes())
    assert answer.status_code == 200, answer.text
    found = linear.decrypt(EncryptedResults.load(answer.content), asked=asked)
    np.testing.assert_array_equal(found["y"], circuit.expected(5))
    assert counted() == before + 5
    (line,) = [x for x in ready.lines[lines:] if x.get("samples")]
    assert line["client"] == "alice"
    assert line["request"] == answer.headers["x-request-id"]
    assert not any("a" * 32 in str(x) or asked.header.keys in str(x) for x in ready.lines)


def test_keys_of_one_client_are_unusable_by_another(ready, alice, bob, table):
    assert ready.put(alice).status_code == 201
    asked = alice.encrypt(table.some(1)).to_bytes()
    refused = ready.evaluate(asked, "bob", "table")
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "unknown-keys"
    # With keys of bob's own, what alice encrypted is refused as well.
    assert ready.put(bob, "bob").status_code == 201
    assert ready.evaluate(asked, "bob", "table").status_code == 404
    assert ready.evaluate(asked, model="table").status_code == 200


def test_what_is_no_ciphertext_is_refused(ready, linear, circuit):
    asked = linear.encrypt(circuit.some(2))
    whole = asked.to_bytes()
    other = replace(asked, header=replace(asked.header, circuit="0" * 64))
    strange = replace(asked, header=replace(asked.header, batch=3, samples=6))
    bad_call = {name: b"\0" * len(content) for name, content in asked.calls[0].items()}
    for body, statuses in (
        (b"", {400}),
        (b"PK\3\4", {400}),
        (b"x" * 1000, {400}),
        (whole[:-30], {400}),
        (whole[:200], {400}),
        (linear.evaluation_keys().to_bytes(), {400}),
        (other.to_bytes(), {422}),
        (strange.to_bytes(), {422}),
        (replace(asked, calls=(bad_call, asked.calls[1])).to_bytes(), {422}),
    ):
        answer = ready.evaluate(body)
        assert answer.status_code in statuses, (body[:20], answer.text)
        assert set(answer.json()["error"]) == {"code", "what", "found", "allowed", "do", "request"}
    assert ready.evaluate(whole).status_code == 200


def test_flipped_bits_are_refused_or_change_nothing(ready, linear, circuit):
    asked = linear.encrypt(circuit.some(1))
    whole = asked.to_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(random.integers(8))
        answer = ready.evaluate(bytes(changed))
        if answer.status_code == 200:
            # Zip repeats names and times that nobody reads.
            found = linear.decrypt(EncryptedResults.load(answer.content), asked=asked)
            np.testing.assert_array_equal(found["y"], circuit.expected(1))
        else:
            assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize("samples", [10**6, 10**15, -1, 0])
def test_numbers_that_are_not_true_cost_nothing(ready, linear, circuit, samples):
    asked = linear.encrypt(circuit.some(1))
    answer = ready.evaluate(replace(asked, header=replace(asked.header, samples=samples)).to_bytes())
    assert answer.status_code in (400, 413)


def test_a_zip_that_unpacks_to_much_is_refused(ready, linear, circuit):
    asked = linear.encrypt(circuit.some(1))
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(asked.to_bytes())) as whole, zipfile.ZipFile(target, "w") as bomb:
        for entry in whole.infolist():
            content = whole.read(entry)
            packed = entry.filename != "header.json"
            bomb.writestr(entry, bytes(200 * 2**20) if packed else content, zipfile.ZIP_DEFLATED)
    answer = ready.evaluate(target.getvalue())
    assert answer.status_code == 400
    assert "unpacks" in answer.json()["error"]["what"]


def test_samples_and_bodies_have_limits(serving, linear, circuit):
    body = linear.encrypt(circuit.some(3)).to_bytes()
    few = serving(samples=2)
    few.put(linear)
    assert few.evaluate(body).status_code == 413
    few.close()
    small = serving(body_bytes=len(body) - 1)
    small.put(linear)
    assert small.evaluate(body).status_code == 413
    # Without a length told beforehand, too.
    parts = (body[i : i + 100] for i in range(0, len(body), 100))
    assert small.http.post("/models/net/evaluate", content=parts, headers=bearer("alice")).status_code == 413
    assert small.http.app.state.service.held.bytes == 0


def test_a_full_queue_and_full_memory_are_429(serving, linear, circuit):
    body = linear.encrypt(circuit.some(1)).to_bytes()
    full = serving(queue=0)
    full.put(linear)
    refused = full.evaluate(body)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    full.close()
    held = serving(held_bytes=100)
    held.put(linear)
    assert held.evaluate(body).status_code == 429


def test_keys_damaged_on_the_disk_are_asked_for_again(serving, alice, table):
    ready = serving(workers=1)
    body = alice.encrypt(table.some(1)).to_bytes()
    assert ready.put(alice).status_code == 201
    file = max(ready.store.rglob("*.keys"), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    answer = ready.evaluate(body, model="table")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown-keys")
    assert ready.put(alice).status_code == 201
    assert ready.evaluate(body, model="table").status_code == 200


def test_results_with_a_flipped_bit_are_found_by_the_client(ready, linear, circuit):
    asked = linear.encrypt(circuit.some(1))
    content = bytearray(ready.evaluate(asked.to_bytes()).content)
    content[len(content) // 2] ^= 1
    with pytest.raises(ArtifactError):
        EncryptedResults.load(bytes(content))


def test_what_is_not_there_is_404(ready):
    for path in ("/models/other", "/models/net/client", "/nothing", "/keys/" + "0" * 64):
        answer = ready.http.get(path, headers=bearer("alice"))
        assert answer.status_code == 404, path
        assert answer.json()["error"]["what"]
    assert ready.http.get("/keys/xyz", headers=bearer("alice")).status_code == 422
    assert ready.http.put("/models", headers=bearer("alice")).status_code == 405
    ready.wait_until_ready()
