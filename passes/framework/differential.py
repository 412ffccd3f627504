"""An instrument that runs the model before and after each pass and compares what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import PassBase
from typing_extensions import override

from ...ir.batch_runner import Arrays
from ...ir.errors import DataError, VerificationError
from ...ir.runtime import Session
from .instruments import Instrument

FLOAT_TOLERANCE = 1e-4
"""Largest difference of a pass that preserves values exactly, relative to the largest absolute value of
the output: float operators in another order or fused differ by this much."""


@dataclass(frozen=True)
class Difference:
    """How far one output moved over one pass.

    Attributes:
        pass_name: The pass.
        preserves: What it claims: ``exact``, ``float`` or ``approximate``.
        output: The output, by its name before the pass.
        max_abs: Largest absolute difference; infinite where one side is not finite and the other is.
        scale: Largest finite absolute value of the output before the pass.
        same_argmax: Share of samples whose largest entry is at the same place; of equal samples where
            there is only one entry a sample, or where the output holds integers.
    """

    pass_name: str
    preserves: str
    output: str
    max_abs: float
    scale: float
    same_argmax: float

    @property
    def relative(self) -> float:
        """``max_abs`` as a share of ``scale``."""
        return self.max_abs / self.scale if self.max_abs else 0.0


class DifferentialCheck(Instrument):
    """Compares the outputs on some samples before and after each pass.

    Args:
        data: Arrays by input name, samples on axis 0.
        tolerance: Largest relative difference of a pass that preserves values within float error.
        samples: How many samples to run.

    Attributes:
        differences: One for each pass and output, in order; an ``approximate`` pass is only reported.

    Raises:
        DataError: There are no samples, or an input has no data.
        VerificationError: A pass changed the outputs by more than it claims to.
    """

    def __init__(
        self, data: Mapping[str, NDArray[Any]], *, tolerance: float = 1e-3, samples: int = 128
    ) -> None:
        if not data or any(len(v) == 0 for v in data.values()):
            raise DataError("comparing stages needs samples", found="none", do="give them with --calibration")
        self.data = {k: v[:samples] for k, v in data.items()}
        self.tolerance = tolerance
        self.differences: list[Difference] = []
        self._before: Arrays = {}

    @override
    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        """Run the model as given."""
        self.differences = []
        self._before = self._run(model)

    @override
    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:
        """Run it again and compare, also where the pass says that it changed nothing: that may be wrong."""
        from .pipeline import pass_name

        name, preserves = pass_name(pass_), getattr(pass_, "preserves", "exact")
        before, after = self._before, self._run(model)
        self._before = after
        if [v.shape for v in before.values()] != [v.shape for v in after.values()]:
            raise VerificationError(
                f"{name} changed the outputs of the model",
                pass_name=name,
                found=", ".join(f"{k} {v.shape}" for k, v in after.items()),
                allowed=", ".join(f"{k} {v.shape}" for k, v in before.items()),
            )
        # Outputs may be renamed; their order is the interface.
        for (output, old), new in zip(before.items(), after.values(), strict=True):
            difference = _compare(name, preserves, output, old, new)
            self.differences.append(difference)
            self._require(difference)

    def _require(self, found: Difference) -> None:
        allowed = {"exact": FLOAT_TOLERANCE, "float": self.tolerance}.get(found.preserves)
        if allowed is not None and not found.relative <= allowed:
            raise VerificationError(
                f"{found.pass_name} changed the output {found.output!r} by more than it may",
                pass_name=found.pass_name,
                found=f"{found.max_abs:.3g}, which is {found.relative:.2%} of the largest, {found.scale:.3g}",
                allowed=f"{allowed:.2%} (it says that it preserves values: {found.preserves})",
                do="report this with the stages before and after it (--dump-dir)",
            )

    def _run(self, model: ir.Model) -> Arrays:
        session = Session(model)
        if missing := sorted(set(session.inputs) - set(self.data)):
            raise DataError(
                "an input has no samples",
                found=", ".join(self.data),
                allowed=", ".join(session.inputs),
                do=f"add {', '.join(missing)}",
            )
        return session.run_batched(self.data)

    def to_text(self) -> str:
        """A table: pass, output, largest difference, the same relative, equal argmax."""
        rows = [("pass", "output", "max abs", "relative", "same argmax")]
        rows += [
            (d.pass_name, d.output, f"{d.max_abs:.3g}", f"{d.relative:.2%}", f"{d.same_argmax:.1%}")
            for d in self.differences
        ]
        widths = [max(len(r[i]) for r in rows) for i in range(5)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


def _compare(name: str, preserves: str, output: str, old: NDArray[Any], new: NDArray[Any]) -> Difference:
    a, b = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    apart = np.where(np.isnan(apart), np.inf, apart)
    finite = np.abs(a[np.isfinite(a)])
    scale = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    samples = len(a) if a.ndim else 1
    flat_a, flat_b = a.reshape(samples, -1), b.reshape(samples, -1)
    if flat_a.shape[1] == 1 or not np.issubdtype(old.dtype, np.floating):
        same = (apart.reshape(samples, -1) <= FLOAT_TOLERANCE * scale).all(axis=1)
    else:
        same = flat_a.argmax(axis=1) == flat_b.argmax(axis=1)
    return Difference(name, preserves, output, float(apart.max(initial=0.0)), scale, float(same.mean()))
