"""Cryptographic parameters that decide what a bootstrap costs: time, and the bytes of its keys."""

from __future__ import annotations

import math
from dataclasses import dataclass

WORD_BYTES = 8
"""Bytes of one number of a ciphertext or a key (64 bits)."""


@dataclass(frozen=True)
class BootstrapParameters:
    """Parameters of one bootstrapping key.

    Attributes:
        polynomial_size: N.
        glwe_dimension: k; what comes out is a ciphertext of dimension k N.
        input_lwe_dimension: n: as many external products make one bootstrap.
        level: Levels of the decomposition.
        base_log: Bits of each level.
    """

    polynomial_size: int
    glwe_dimension: int
    input_lwe_dimension: int
    level: int
    base_log: int

    @property
    def output_dimension(self) -> int:
        """Dimension of the ciphertexts that come out."""
        return self.polynomial_size * self.glwe_dimension

    @property
    def transforms(self) -> float:
        """Work in Fourier transforms (butterflies): of every decomposed polynomial, and back."""
        rows = self.glwe_dimension + 1
        size = self.polynomial_size
        return self.input_lwe_dimension * rows * (self.level + 1) * size * math.log2(size)

    @property
    def products(self) -> float:
        """Work in products with the key (coefficients of the key that are read)."""
        rows = self.glwe_dimension + 1
        return float(self.input_lwe_dimension * rows * rows * self.level * self.polynomial_size)

    @property
    def key_bytes(self) -> int:
        """Bytes of the key as it is used."""
        return int(self.products) * WORD_BYTES

    @property
    def sent_bytes(self) -> int:
        """Bytes of the key as it is sent compressed: all but its random part, which is a seed."""
        return self.key_bytes // (self.glwe_dimension + 1)


@dataclass(frozen=True)
class KeyswitchParameters:
    """Parameters of one key-switching key.

    Attributes:
        input_dimension, output_dimension: Dimensions of the ciphertexts.
        level: Levels of the decomposition.
        base_log: Bits of each level.
    """

    input_dimension: int
    output_dimension: int
    level: int
    base_log: int

    @property
    def products(self) -> float:
        """Work in products with the key (numbers of the key that are read)."""
        return float(self.input_dimension * self.level * (self.output_dimension + 1))

    @property
    def key_bytes(self) -> int:
        """Bytes of the key as it is used."""
        return int(self.products) * WORD_BYTES

    @property
    def sent_bytes(self) -> int:
        """Bytes of the key as it is sent compressed."""
        return self.input_dimension * self.level * WORD_BYTES


@dataclass(frozen=True)
class Step:
    """Bootstraps (with the key switch in front of each) that may run at the same time.

    Attributes:
        bootstrap: Parameters of the bootstraps; None for key switches alone.
        keyswitch: Parameters of the key switch.
        count: How many there are for one sample.
    """

    bootstrap: BootstrapParameters | None
    keyswitch: KeyswitchParameters | None
    count: int


def key_bytes(steps: tuple[Step, ...], *, sent: bool = False) -> tuple[int, int]:
    """Bytes of all different (bootstrapping, key-switching) keys of the steps.

    Args:
        steps: Steps of one circuit.
        sent: As they are sent, compressed; else as they are used.
    """
    bootstraps = {s.bootstrap for s in steps if s.bootstrap is not None}
    keyswitches = {s.keyswitch for s in steps if s.keyswitch is not None}
    if sent:
        return sum(b.sent_bytes for b in bootstraps), sum(k.sent_bytes for k in keyswitches)
    return sum(b.key_bytes for b in bootstraps), sum(k.key_bytes for k in keyswitches)
