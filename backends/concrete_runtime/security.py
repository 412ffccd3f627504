"""Whether the parameters of keys are as secure as their file claims.

A client half comes from whoever compiled the network. Keys that are made with less noise than the security
level asks for give away what they encrypt, and nothing else would look wrong: so the client checks before it
makes any.

What is asked for is Concrete's own curve: the least standard deviation of the noise for a dimension n, as a
share of the torus, is ``2 ** (slope * n + bias)``, and never below two bits of the modulus. The numbers are
those of ``gaussian/curves_gen.rs``, and the formula that of ``gaussian/security_weights.rs``, in
``tools/parameter-curves/concrete-security-curves-rust/src`` of https://github.com/zama-ai/concrete. They come
from the Lattice Estimator (https://github.com/malb/lattice-estimator).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...ir.errors import ArtifactError


@dataclass(frozen=True)
class Curve:
    """Base-2 logarithm of the least standard deviation: a line in the dimension."""

    slope: float
    bias: float


CURVES = {
    128: Curve(slope=-0.025696778711484593, bias=2.675931372549016),
    132: Curve(slope=-0.024891456582633045, bias=2.65734593837534),
}
"""By bits of security."""
LEAST_DIMENSION = 450
"""The curves hold from this dimension on; there is none that is secure below."""
MODULUS_BITS = 64
"""Bits of a number of a ciphertext."""
KEPT_BITS = 2
"""Bits of the modulus that noise always covers."""
TOLERANCE = 0.01
"""Bits of the standard deviation that may be missing: rounding of Concrete's own sums."""


@dataclass(frozen=True)
class Noise:
    """The noise of one kind of ciphertext.

    Attributes:
        what: What is encrypted so.
        dimension: Of the secret key; of a GLWE key its dimension times its polynomial size.
        variance: Of the noise, as a share of the torus.
    """

    what: str
    dimension: int
    variance: float


def least_deviation_bits(dimension: int, level: int) -> float:
    """Base-2 logarithm of the least standard deviation that is secure for a dimension."""
    curve = CURVES[level]
    return max(curve.slope * dimension + curve.bias, KEPT_BITS - MODULUS_BITS)


def check(specs: bytes, level: int) -> None:
    """Refuse parameters that are weaker than they claim to be.

    Args:
        specs: Concrete's description of a program.
        level: Bits of security that its file claims.

    Raises:
        ArtifactError: There is too little noise, or no such level, or the description is damaged.
    """
    if level not in CURVES:
        raise _refused(f"{level} bits of security", " or ".join(map(str, CURVES)))
    try:
        plain = json.loads(specs)
        sizes = _keys(plain["keyset"])
        found = [*_of_evaluation_keys(plain["keyset"], sizes), *_of_inputs(plain["circuits"], sizes)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError("this file is damaged", file="specs.json", found=str(error)) from error
    for noise in found:
        _check_noise(noise, level)


def _check_noise(noise: Noise, level: int) -> None:
    if noise.dimension < LEAST_DIMENSION:
        raise _refused(f"a key of dimension {noise.dimension} for {noise.what}", f"from {LEAST_DIMENSION} on")
    least = least_deviation_bits(noise.dimension, level)
    # No number at all compares as false.
    given = math.log2(noise.variance) / 2 if noise.variance > 0 else -math.inf
    if not given >= least - TOLERANCE:
        raise _refused(
            f"noise of standard deviation 2^{given:.2f} for {noise.what} of dimension {noise.dimension}",
            f"at least 2^{least:.2f} for {level} bits of security",
        )


def _keys(keyset: dict[str, Any]) -> dict[int, int]:
    """Dimension of each secret key by its number.

    Raises:
        ArtifactError: One is not of uniformly random bits, for which the curves hold.
    """
    for key in keyset["lweSecretKeys"]:
        if key["params"]["keyType"] != "binary":
            raise _refused(f"a secret key of the type {key['params']['keyType']}", "binary")
    return {int(k["id"]): int(k["params"]["lweDimension"]) for k in keyset["lweSecretKeys"]}


def _of_evaluation_keys(keyset: dict[str, Any], sizes: dict[int, int]) -> Iterator[Noise]:
    """Evaluation keys are ciphertexts of one secret key under another: ``outputId``."""
    for key in keyset["lweBootstrapKeys"]:
        _check_shape("bootstrapping keys", _glwe(key["params"]), sizes[key["outputId"]])
        yield _noise("bootstrapping keys", key, sizes)
    for key in keyset["lweKeyswitchKeys"]:
        yield _noise("key switching keys", key, sizes)
    for key in keyset["packingKeyswitchKeys"]:
        _check_shape("packing keys", _glwe(key["params"]), sizes[key["outputId"]])
        yield _noise("packing keys", key, sizes)


def _of_inputs(circuits: list[dict[str, Any]], sizes: dict[int, int]) -> Iterator[Noise]:
    for circuit in circuits:
        for number, port in enumerate(circuit["inputs"]):
            what = f"input {number}"
            if "lweCiphertext" not in port["typeInfo"]:
                raise _refused(f"{what}, which is sent in the clear", "encrypted inputs")
            given = port["typeInfo"]["lweCiphertext"]["encryption"]
            _check_shape(what, int(given["lweDimension"]), sizes[given["keyId"]])
            yield Noise(what, sizes[given["keyId"]], float(given["variance"]))


def _noise(what: str, key: dict[str, Any], sizes: dict[int, int]) -> Noise:
    return Noise(what, sizes[key["outputId"]], float(key["params"]["variance"]))


def _glwe(parameters: dict[str, Any]) -> int:
    return int(parameters["glweDimension"]) * int(parameters["polynomialSize"])


def _check_shape(what: str, found: int, allowed: int) -> None:
    if found != allowed:
        raise _refused(f"dimension {found} for {what}", f"{allowed}, that of their secret key")


def _refused(found: str, allowed: str) -> ArtifactError:
    return ArtifactError(
        "the keys of this circuit would be weaker than it claims",
        file="specs.json",
        found=found,
        allowed=allowed,
        do="do not use this client half; ask whoever compiled the network for an honest one",
    )
