"""How all tables of a model are rounded, besides the bits of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from ...framework.base import Context
from .memo import Memo
from .rounding_inserter import RoundingInserter
from .rounding_setting import RoundingSetting
from .unrounded_reference import UnroundedReference


@dataclass(frozen=True)
class Rounding:
    """What all tables have in common.

    Attributes:
        mode: Mode of each RoundBits.
        output_bits: Bits of raw outputs that are decrypted; 0 for all.
    """

    mode: Literal["approximate", "exact"]
    output_bits: int | Literal["auto"]

    def apply(
        self,
        model: ir.Model,
        data: Mapping[str, np.ndarray],
        settings: Mapping[ir.Node, RoundingSetting],
        context: Context,
        plain: UnroundedReference | None = None,
        memo: Memo | None = None,
    ) -> bool:
        """Round ``model`` in place with a given setting for each TableLookup; true if that changed it.

        Args:
            model: Integer level.
            data: Calibration inputs.
            settings: For each TableLookup.
            context: Range mode and margin.
            plain: The model without rounding on ``data``, where that was run already.
            memo: Memo of the search that this is only a trial of.
        """
        bits = self._decrypted_bits(settings)
        return RoundingInserter(model, data, context, settings, self.mode, bits, plain, memo).run()

    def _decrypted_bits(self, settings: Mapping[ir.Node, RoundingSetting]) -> int:
        """The widest raw outputs with which bootstraps cost no more (measured: 7 bits up to tables of 4 bits,
        then 6).

        Exact rounding would cost a bootstrap for each bit, so in that mode nothing is dropped.
        """
        if self.mode == "exact":
            return 0
        if self.output_bits != "auto":
            return int(self.output_bits)
        return 7 if max(s.bits for s in settings.values()) <= 4 else 6
