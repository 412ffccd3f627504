"""Evaluation keys of a service: whose they are, what is refused, and what survives."""

from __future__ import annotations

import errno
import os
import time

import pytest
from services import bearer

from onnx_fhe.service import key_routes
from onnx_fhe.sides.bundle import Bundle
from onnx_fhe.sides.headers import EvaluationKeysHeader
from onnx_fhe.sides.keys import EvaluationKeys, secret_file


def files(store):
    """What lies in a store, but for what it knows of itself."""
    return sorted(p.name for p in store.rglob("*") if p.is_file() and p.name not in ("lock", "ages.json"))


def test_keys_belong_to_whoever_uploaded_them(serving, alice):
    service = serving()
    identity = alice.evaluation_keys().id
    assert service.put(alice).status_code == 201
    assert service.put(alice).status_code == 200
    for method, statuses in (("GET", (200, 404)), ("HEAD", (200, 404)), ("DELETE", (204, 404))):
        for name, status in zip(("alice", "bob"), statuses, strict=True):
            if (method, name) != ("DELETE", "alice"):
                answer = service.http.request(method, f"/keys/{identity}", headers=bearer(name))
                assert answer.status_code == status, (method, name)
    assert service.http.get("/keys", headers=bearer("bob")).json() == []
    assert [k["id"] for k in service.http.get("/keys", headers=bearer("alice")).json()] == [identity]
    assert service.http.delete(f"/keys/{identity}", headers=bearer("alice")).status_code == 204
    assert files(service.store) == []


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Bearer", f"Basic {'a' * 32}"])
def test_nobody_unknown_gets_anywhere(serving, token):
    service, header = serving(), {"Authorization": token}
    for path in ("/keys", f"/keys/{'0' * 64}", "/models", "/models/net", "/metrics"):
        answer = service.http.get(path, headers=header)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert service.http.post("/models/net/evaluate", headers=header, content=b"x").status_code == 401
    assert service.http.get("/health", headers=header).status_code == 200


def test_secret_keys_are_refused_and_leave_no_trace(serving, alice, tmp_path):
    alice.save_keys(tmp_path / "secret")
    content = secret_file(tmp_path / "secret", alice.header.circuit().parameters).read_bytes()
    service = serving()
    for answer in (service.put(alice, content=content), service.evaluate(content)):
        assert answer.status_code == 400
        assert answer.json()["error"]["found"] == "secret keys"
        assert "keep it where it was made" in answer.json()["error"]["do"]
    assert files(service.store) == []


@pytest.mark.parametrize("cut", [0, 10, 100, -1, -50])
def test_a_truncated_upload_is_refused(serving, alice, cut):
    service = serving()
    answer = service.put(alice, content=alice.evaluation_keys().to_bytes()[:cut])
    assert answer.status_code == 400, answer.text
    assert files(service.store) == []


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_found(serving, alice, place):
    service = serving()
    content = bytearray(alice.evaluation_keys().to_bytes())
    content[int(place * len(content))] ^= 8
    assert service.put(alice, content=bytes(content)).status_code == 400
    assert files(service.store) == []


def test_keys_that_are_others_than_the_address_says_are_refused(serving, alice, bob):
    service = serving()
    answer = service.put(alice, content=bob.evaluation_keys().to_bytes())
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "other-keys"


def test_keys_of_other_parameters_are_refused(serving, alice):
    service = serving()
    own = alice.evaluation_keys()
    keys = EvaluationKeys.of("0" * 64, own.content, own.pair)
    assert service.put(alice, content=keys.to_bytes()).json()["error"]["code"] == "other-parameters"


def test_keys_that_say_they_are_others_are_refused(serving, alice):
    service = serving()
    keys = alice.evaluation_keys()
    header = EvaluationKeysHeader(parameters=keys.parameters, keys=keys.id, pair=keys.pair)
    answer = service.put(alice, content=Bundle(header, {"keys": keys.content[:-8]}).to_bytes())
    assert answer.status_code == 400
    assert files(service.store) == []


def test_keys_have_limits(serving, alice, bob, tmp_path):
    size = len(alice.evaluation_keys().to_bytes())
    small = serving(key_bytes=size - 1)
    assert small.put(alice).status_code == 413
    each = serving(store=tmp_path / "each", client_keys_bytes=size + 100)
    assert each.put(alice).status_code == 201
    assert each.put(bob, "alice").status_code == 413
    assert each.put(bob, "bob").status_code == 201
    total = serving(store=tmp_path / "total", keys_bytes=size + 100)
    assert total.put(alice).status_code == 201
    refused = total.put(bob, "bob")
    assert refused.status_code == 413
    assert "--evict-keys" in refused.json()["error"]["do"]


def test_where_asked_the_oldest_keys_make_room(serving, alice, bob):
    size = len(alice.evaluation_keys().to_bytes())
    service = serving(evict=True, keys_bytes=size + 100)
    assert service.put(alice).status_code == 201
    assert service.put(bob, "bob").status_code == 201
    assert service.http.get("/keys", headers=bearer("alice")).json() == []


def test_keys_survive_a_restart_and_a_clock_that_is_set(serving, alice, tmp_path, monkeypatch):
    first = serving(store=tmp_path / "kept", keys_days=1)
    assert first.put(alice).status_code == 201
    first.close()
    for years in (-30, 30):
        moved = time.time() + years * 365 * 86400
        monkeypatch.setattr(time, "time", lambda moved=moved: moved)
        for file in (tmp_path / "kept").rglob("*.keys"):
            os.utime(file, (moved, moved))
        again = serving(store=tmp_path / "kept", keys_days=1)
        found = again.http.get(f"/keys/{alice.evaluation_keys().id}", headers=bearer("alice"))
        assert found.status_code == 200, years
        again.close()


def test_keys_that_nobody_uses_expire(serving, alice, monkeypatch):
    service = serving(keys_days=1)
    assert service.put(alice).status_code == 201
    identity = alice.evaluation_keys().id
    running = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: running() + 0.9 * 86400)
    assert service.http.get(f"/keys/{identity}", headers=bearer("alice")).status_code == 200
    monkeypatch.setattr(time, "monotonic", lambda: running() + 2.1 * 86400)
    assert service.http.get(f"/keys/{identity}", headers=bearer("alice")).status_code == 404
    assert files(service.store) == []


def test_a_full_disk_keeps_nothing_and_says_so(serving, alice, monkeypatch):
    service = serving()
    written = key_routes._write

    def full(handle, content):
        written(handle, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(key_routes, "_write", full)
    answer = service.put(alice)
    assert answer.status_code == 507
    assert answer.headers["retry-after"] == "60"
    assert files(service.store) == []
    monkeypatch.undo()
    assert service.put(alice).status_code == 201


def test_a_damaged_file_of_ages_loses_no_keys(serving, alice, tmp_path):
    first = serving(store=tmp_path / "kept")
    assert first.put(alice).status_code == 201
    first.close()
    (tmp_path / "kept" / "ages.json").write_text('{"now": "x"')
    again = serving(store=tmp_path / "kept")
    assert again.http.get(f"/keys/{alice.evaluation_keys().id}", headers=bearer("alice")).status_code == 200
