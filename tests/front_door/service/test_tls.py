"""HTTPS by option: a client believes the certificate that it is given, and no other."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

import onnx_fhe
from onnx_fhe.ir.errors import ServiceError

pytestmark = pytest.mark.encrypted


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_answers_come_over_tls_to_whoever_believes_the_certificate(launch, circuit, tmp_path):
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", "-x509", *kind, *files, *names], check=True, capture_output=True)
    service = launch("--tls-certificate", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    assert service.url.startswith("https://")
    with pytest.raises(ServiceError):
        onnx_fhe.RemoteProgram(service.url, circuit.client, patience=0.1)
    remote = onnx_fhe.RemoteProgram(service.url, circuit.client, certificate=str(tmp_path / "cert.pem"))
    np.testing.assert_array_equal(remote.run(circuit.some(2)).outputs["y"], circuit.expected(2))
