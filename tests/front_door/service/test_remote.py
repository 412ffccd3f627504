"""``RemoteProgram``: a service is used as a program is, also one that is busy, forgetful or on a bad line."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from services import TOKENS, bearer

import onnx_fhe
from onnx_fhe.ir.errors import DataError, ServiceError, UserError
from onnx_fhe.sides.keys import secret_file

pytestmark = pytest.mark.encrypted


class Line(httpx.BaseTransport):
    """A line to a service in this process.

    Args:
        service: The service.
        busy: Answers of 429 before evaluation works.
        damaged: Results with a flipped bit before they come whole.
    """

    def __init__(self, service, busy=0, damaged=0):
        self._inner, self.busy, self.damaged = service.http._transport, busy, damaged

    def handle_request(self, request):
        evaluates = request.url.path.endswith("/evaluate")
        if evaluates and self.busy:
            self.busy -= 1
            return httpx.Response(429, headers={"Retry-After": "0"}, json={"error": {"what": "busy"}})
        answer = self._inner.handle_request(request)
        if evaluates and self.damaged and answer.status_code == 200:
            self.damaged -= 1
            content = bytearray(answer.read())
            content[len(content) // 2] ^= 1
            return httpx.Response(200, content=bytes(content))
        return answer


def remote(service, circuit, folder=None, patience=20.0, **line):
    return onnx_fhe.RemoteProgram(
        "http://testserver",
        circuit.client,
        folder,
        TOKENS["alice"],
        patience=patience,
        transport=Line(service, **line),
    )


def test_outputs_are_those_of_the_program(serving, table, alices_keys):
    program = remote(serving(workers=1), table, alices_keys)
    assert program.model == "table"
    result = program.run(table.some(5), limit=3, samples=2)
    np.testing.assert_array_equal(result.outputs["y"], table.expected(3))
    assert result.samples == 3
    assert set(result.seconds) == {"upload", "encrypt", "wait", "decrypt"}
    assert result.warnings[-1].startswith("the token went over plain HTTP")


def test_clipped_values_are_counted_over_all_requests(serving, circuit):
    wide = {"input": 100 * np.ones((4, 6), np.float32)}
    result = remote(serving(workers=1), circuit).run(wide, samples=1)
    assert (result.clip.values, result.clip.samples) == (24, 4)
    assert "clipped" in result.warnings[0]


def test_secret_keys_stay_in_their_folder(serving, table, tmp_path):
    service = serving()
    first = remote(service, table, tmp_path / "keys")
    first.upload_keys()
    assert secret_file(tmp_path / "keys", first.client.header.circuit().parameters).exists()
    remote(service, table, tmp_path / "keys").upload_keys()
    assert len(service.http.get("/keys", headers=bearer("alice")).json()) == 1


def test_keys_that_the_service_lost_are_uploaded_again(serving, table, alices_keys):
    service = serving(workers=1)
    program = remote(service, table, alices_keys)
    program.upload_keys()
    (kept,) = service.http.get("/keys", headers=bearer("alice")).json()
    program.upload_keys = lambda real=program.upload_keys: (  # lost after it was looked for
        real(),
        service.http.delete(f"/keys/{kept['id']}", headers=bearer("alice")),
        setattr(program, "upload_keys", real),
    )
    np.testing.assert_array_equal(program.run(table.some(1)).outputs["y"], table.expected(1))


def test_a_busy_service_is_asked_again(serving, circuit):
    service = serving(workers=1)
    result = remote(service, circuit, busy=2).run(circuit.some(1))
    np.testing.assert_array_equal(result.outputs["y"], circuit.expected(1))
    with pytest.raises(ServiceError, match="busy"):
        remote(service, circuit, busy=100, patience=1).run(circuit.some(1))


def test_damaged_results_are_asked_for_again(serving, circuit):
    service = serving(workers=1)
    result = remote(service, circuit, damaged=1).run(circuit.some(1))
    np.testing.assert_array_equal(result.outputs["y"], circuit.expected(1))
    with pytest.raises(DataError, match="damaged on their way"):
        remote(service, circuit, damaged=2).run(circuit.some(1))


def test_mistakes_are_errors_of_the_house(serving, circuit, table, tmp_path):
    service = serving()
    with pytest.raises(ServiceError, match="does not know who asks"):
        onnx_fhe.RemoteProgram("http://testserver", circuit.client, transport=Line(service))
    with pytest.raises(UserError, match="no address"):
        onnx_fhe.RemoteProgram("localhost:8080", circuit.client)
    with pytest.raises(ServiceError, match="cannot be reached"):
        onnx_fhe.RemoteProgram("http://127.0.0.1:9", circuit.client, patience=0)
    with pytest.raises(UserError, match="no circuit that belongs"):
        onnx_fhe.RemoteProgram(
            "http://testserver", circuit.client, None, TOKENS["alice"], "table", transport=Line(service)
        )
    with pytest.raises(UserError, match="which model of the service is meant"):
        onnx_fhe.RemoteProgram("http://testserver", None, None, TOKENS["alice"], transport=Line(service))
    with pytest.raises(UserError, match="no samples"):
        remote(service, circuit).run(circuit.some(1), limit=0)
