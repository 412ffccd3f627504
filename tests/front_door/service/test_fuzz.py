"""Requests that nobody would make, by the service's own description: no answer of 500 or above."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services import bearer

pytestmark = pytest.mark.encrypted
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")
PATHS = (
    *("/keys", "/keys/{}", "/health", "/{}"),
    *("/models", "/models/{}", "/models/{}/client", "/models/{}/evaluate"),
)


@pytest.fixture
def service(serving, alice):
    made = serving(workers=0, body_bytes=10_000, key_bytes=10_000)
    assert made.put(alice).status_code == 413
    return made


@settings(max_examples=150, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    method=st.sampled_from(METHODS),
    path=st.sampled_from(PATHS),
    name=st.one_of(st.sampled_from(("net", "0" * 64, "%2e%2e", "..%2F..", "\\0")), st.text(max_size=20)),
    body=st.one_of(st.binary(max_size=400), st.binary(max_size=100).map(lambda b: b"PK\3\4" + b)),
    headers=st.dictionaries(
        st.sampled_from(("Content-Type", "Content-Length", "Authorization", "Range", "Expect", "Accept")),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30),
        max_size=3,
    ),
)
def test_nothing_ends_in_a_fault_of_ours(service, method, path, name, body, headers):
    from urllib.parse import quote

    target = path.format(quote(name, safe="%"))
    given = {k: v for k, v in headers.items() if k != "Content-Length" or v.isdigit()}
    answer = service.http.request(method, target, content=body, headers=bearer("alice") | given)
    assert answer.status_code < 500, (method, target, given, answer.text)
    if answer.status_code >= 400 and method != "HEAD":
        assert set(json.loads(answer.content)["error"]) >= {"code", "what", "do", "request"}


def test_the_description_says_all_answers(service):
    described = service.http.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/keys", "/keys/{identity}", "/models", "/models/{name}", "/models/{name}/client",
        "/models/{name}/evaluate", "/health", "/ready", "/metrics",
    }  # fmt: skip
    for path, methods in described["paths"].items():
        for method, said in methods.items():
            assert said["description"], (method, path)
            assert all(r["description"] for r in said["responses"].values())
    evaluate = described["paths"]["/models/{name}/evaluate"]["post"]
    assert set(evaluate["responses"]) >= {"200", "400", "401", "404", "408", "413", "422", "429", "503"}


def test_schemathesis_finds_no_fault(service):
    schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")
    schema = schemathesis.openapi.from_asgi("/openapi.json", service.http.app)
    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy()

        @settings(max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        @given(case=strategy)
        def ask(case):
            answer = case.call(headers=bearer("alice"))
            # /ready says that no worker runs here.
            assert answer.status_code < 500 or case.path == "/ready", (case.method, case.path, answer.text)

        ask()
