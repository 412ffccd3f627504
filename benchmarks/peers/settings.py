"""The settings of Concrete ML that are tried: what somebody who knows it well would try."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """Arguments of ``compile_onnx_model``.

    Attributes:
        n_bits: Of weights, inputs and activations.
        rounding: ``rounding_threshold_bits``, method approximate; None for no rounding.
        p_error: Tolerated error of one lookup; None for its default, 2^-40.
    """

    n_bits: int
    rounding: int | None = None
    p_error: float | None = None

    def __str__(self) -> str:
        rounding = f"round to {self.rounding}" if self.rounding else "no rounding"
        error = f"p_error {self.p_error:g}" if self.p_error else "default p_error"
        return f"{self.n_bits} bits, {rounding}, {error}"

    def arguments(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


AS_IT_COMES = Setting(8)
"""Called with the model and the data alone."""

BITS = (3, 4, 5, 6, 7)
ROUNDINGS = (4, 5, 6, 7, 8, None)
ERRORS = (0.01, None)


def grid() -> list[Setting]:
    """The whole sweep; what compiles fast comes first: without rounding, tables are wide."""
    return [Setting(b, r, p) for r in ROUNDINGS for p in ERRORS for b in BITS]
