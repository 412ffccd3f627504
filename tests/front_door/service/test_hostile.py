"""Ciphertexts and keys that are well packed and wrong inside: refused, and no worker is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from services import bearer

from onnx_fhe.sides.ciphertexts import EncryptedResults
from onnx_fhe.sides.keys import EvaluationKeys

pytestmark = pytest.mark.encrypted


@pytest.fixture(scope="module")
def ready(serving_module, alice, bob):
    """A service with one worker for all of these tests: what is wrong shall not harm what comes after it."""
    service = serving_module(workers=1)
    for client, name in ((alice, "alice"), (bob, "bob")):
        assert service.put(client, name).status_code == 201
    return service


def test_ciphertexts_that_are_wrong_inside_lose_no_worker(ready, alice, table):
    asked = alice.encrypt(table.some(1))
    random = np.random.default_rng(0)
    (call,) = asked.calls
    for _ in range(40):
        changed = {}
        for name, content in call.items():
            wrong = bytearray(content)
            for place in random.integers(0, len(wrong), int(random.integers(1, 6))):
                wrong[place] = int(random.integers(256))
            changed[name] = bytes(wrong)
        answer = ready.evaluate(replace(asked, calls=(changed,)).to_bytes(), model="table")
        assert answer.status_code in (200, 422), answer.text
    assert not [x for x in ready.lines if x["event"] in ("worker ended", "call lost", "defect")]
    answer = ready.evaluate(asked.to_bytes(), model="table")
    found = alice.decrypt(EncryptedResults.load(answer.content), asked=asked)
    np.testing.assert_array_equal(found["y"], table.expected(1))


@pytest.mark.parametrize("kind", ["cut", "noise", "empty", "of another circuit", "flipped frame"])
def test_keys_that_are_wrong_inside_do_no_harm(ready, alice, bob, linear, table, kind):
    content = alice.evaluation_keys().content
    random = np.random.default_rng(0)
    wrong = {
        "cut": content[: len(content) // 2 // 8 * 8],
        "noise": content[:64] + random.bytes(len(content) - 64),
        "empty": b"",
        "of another circuit": linear.evaluation_keys().content,
        "flipped frame": bytes(b ^ (i % 7 == 0) for i, b in enumerate(content[:400])) + content[400:],
    }[kind]
    keys = EvaluationKeys.of(alice.evaluation_keys().parameters, wrong)
    put = ready.http.put(f"/keys/{keys.id}", content=keys.to_bytes(), headers=bearer("alice"))
    asked = alice.encrypt(table.some(1))
    named = replace(asked, header=replace(asked.header, keys=keys.id))
    answer = ready.evaluate(named.to_bytes(), model="table")
    assert (put.status_code, answer.status_code) == (201, 422), answer.text
    assert not [x for x in ready.lines if x["event"] in ("worker ended", "call lost", "defect")]
    # Another client's work is done all the same.
    others = bob.encrypt(table.some(1))
    answer = ready.evaluate(others.to_bytes(), "bob", "table")
    found = bob.decrypt(EncryptedResults.load(answer.content), asked=others)
    np.testing.assert_array_equal(found["y"], table.expected(1))
