"""What of a program is split in two halves, and run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .backends.base import Circuit
from .ir.partition import Parts
from .manifest import Manifest


class Splittable(Protocol):
    """A ``Program``, as far as whoever splits or runs it has to know one."""

    @property
    def manifest(self) -> Manifest:
        """What it says about itself."""

    @property
    def circuits(self) -> Mapping[int, Circuit]:
        """Its circuits by the number of samples that they take in one call."""

    @property
    def parts(self) -> Parts:
        """Prologue, server part and epilogue of its integer model."""
