"""``distill``: train the quantized network to imitate the imported one, on calibration inputs alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from ..ir.errors import DataError, UnsupportedError, UserError
from ..ir.level import Level
from .base import Context, Pass, option


@dataclass(frozen=True)
class Distill(Pass):
    """Self-distillation: the model in the pipeline is the student, the model as imported the teacher.

    Weights, biases and scales are trained through straight-through fake quantization (Jacob et al. 2018;
    scales as in LSQ, Esser et al. 2020), with the rounding of accumulators and the noise of bootstraps in
    place, as the circuit will have them. It reads calibration data only, and no labels unless asked to.
    """

    name: ClassVar[str] = "distill"
    accepts: ClassVar[tuple[Level, ...]] = (Level.QDQ,)
    preserves: ClassVar[Literal["exact", "float", "approximate"]] = "approximate"

    rounding: int | Literal["auto"] = option(
        "auto",
        help="Bits that will reach each table, found again by insert-rounding; 0: no rounding; auto: the"
        " fewest of 4 and 5 with which the student agrees with the teacher.",
        low=0,
        high=8,
    )
    steps: int = option(4000, help="Batches to train on.", low=1)
    batch: int = option(128, help="Samples in a batch.", low=1)
    rate: float = option(0.02, help="Learning rate, in integer steps of a weight.", low=0)
    seconds: float | None = option(None, help="Stop after so long and keep the best so far.", low=0)
    temperature: float = option(2.0, help="Softens class scores.", low=0.1)
    loss: Literal["auto", "classes", "values"] = option(
        "auto", help="Imitate classes, or values; auto looks at the outputs."
    )
    labels: bool = option(False, help="Also train on the labels of the calibration data.")
    hold: float = option(
        0.15, help="Share of the calibration data held back to choose the best state.", low=0, high=0.5
    )
    optional: bool = option(
        False,
        help="Go without, with a note, where PyTorch, calibration data or an operator stands in the way.",
    )
    augment: int = option(30, help="Mixed, noisy and shifted samples for each calibration sample.", low=0)
    spread: float = option(0.003, help="Penalty on ranges much wider than what they mostly hold.", low=0)

    def run(self, model: ir.Model, context: Context) -> bool:
        """Train ``model`` in place.

        Raises:
            DataError: There is no calibration data, or too little.
            UserError: torch is not installed.
            UnsupportedError: An operator cannot be differentiated.
        """
        try:
            from .distilling.job import run
        except ImportError as error:
            refused: UserError = UnsupportedError(
                "distill needs PyTorch",
                found=str(error),
                do="install onnx-fhe[train], or leave distill out of the pipeline",
            )
            if not self.optional:
                raise refused from error
        else:
            try:
                return run(self, model, context)
            except (DataError, UnsupportedError) as error:
                if not self.optional:
                    raise
                refused = error
        context.notes.append(f"distill: left out: {refused.what} (found {refused.found}); {refused.do}")
        return False
