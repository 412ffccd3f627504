"""Parameters of keys are held against the curve of the security level that their file claims."""

from __future__ import annotations

import json
import math

import pytest

from onnx_fhe.backends.concrete_runtime.security import CURVES, check, least_deviation_bits
from onnx_fhe.ir.errors import ArtifactError

# What Concrete 2.11 chose for examples/digits_mlp with 128 bits.
SHORT, LONG = (787, 2.7251621928296953e-11), (2048, 8.442253112932959e-31)


def description(short=SHORT, long=LONG, kind="binary", sent=None):
    """Keys of one parameter, and one input."""
    glwe = {"glweDimension": 2, "polynomialSize": long[0] // 2}
    encryption = {"keyId": 0, "variance": long[1] if sent is None else sent, "lweDimension": long[0]}
    return {
        "keyset": {
            "lweSecretKeys": [
                {"id": 0, "params": {"lweDimension": long[0], "keyType": kind}},
                {"id": 1, "params": {"lweDimension": short[0], "keyType": "binary"}},
            ],
            "lweBootstrapKeys": [{"inputId": 1, "outputId": 0, "params": glwe | {"variance": long[1]}}],
            "lweKeyswitchKeys": [{"inputId": 0, "outputId": 1, "params": {"variance": short[1]}}],
            "packingKeyswitchKeys": [],
        },
        "circuits": [{"inputs": [{"typeInfo": {"lweCiphertext": {"encryption": encryption}}}]}],
    }


def checked(plain, level=128):
    check(json.dumps(plain).encode(), level)


def test_the_curve_is_concretes_own():
    for dimension, variance in (SHORT, LONG):
        assert math.log2(variance) / 2 == pytest.approx(least_deviation_bits(dimension, 128), abs=1e-6)


@pytest.mark.parametrize("level", sorted(CURVES))
def test_noise_covers_two_bits_of_the_modulus_however_long_the_key(level):
    assert least_deviation_bits(10**6, level) == -62


def test_what_concrete_chooses_is_taken():
    checked(description())


@pytest.mark.parametrize(
    ("weak", "found"),
    [
        (description(short=(787, SHORT[1] / 4)), "key switching keys"),
        (description(long=(2048, LONG[1] / 4)), "bootstrapping keys"),
        (description(sent=LONG[1] / 4), "input 0"),
        (description(sent=0.0), "input 0"),
        (description(sent=-1.0), "input 0"),
        (description(sent=math.nan), "input 0"),
        (description(short=(760, SHORT[1])), "dimension 760"),
        (description(short=(300, 0.1)), "from 450 on"),
        (description(kind="zero"), "type zero"),
    ],
)
def test_keys_with_too_little_noise_are_refused(weak, found):
    with pytest.raises(ArtifactError, match="weaker than it claims") as caught:
        checked(weak)
    assert found in str(caught.value)


def test_parameters_of_128_bits_are_none_of_132():
    with pytest.raises(ArtifactError, match="132 bits of security"):
        checked(description(), level=132)


@pytest.mark.parametrize("level", [0, 80, 127, 256])
def test_another_level_is_refused(level):
    with pytest.raises(ArtifactError, match="128 or 132"):
        checked(description(), level=level)


def test_a_key_that_is_shorter_than_what_is_said_of_ciphertexts_is_refused():
    plain = description()
    plain["keyset"]["lweSecretKeys"][0]["params"]["lweDimension"] = 512
    with pytest.raises(ArtifactError, match="that of their secret key"):
        checked(plain)


def test_inputs_in_the_clear_are_refused():
    plain = description()
    plain["circuits"][0]["inputs"][0]["typeInfo"] = {"plaintext": {}}
    with pytest.raises(ArtifactError, match="in the clear"):
        checked(plain)


def test_a_description_of_another_structure_is_damaged():
    plain = description()
    del plain["keyset"]["lweKeyswitchKeys"]
    with pytest.raises(ArtifactError, match="damaged"):
        checked(plain)
