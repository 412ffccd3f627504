"""Refusing what cannot run encrypted before passes that take long, not in the quantization behind them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import PassBase
from typing_extensions import override

from ...analysis.regions.region_analysis import find_regions
from ...ir.errors import UnsupportedError
from ...ir.level import Level, level_of
from .instruments import Instrument
from .pipeline import pass_name

__all__ = ["Supported", "require_supported"]

QUICK = ("normalize", "import-qat", "quantize", "imitate", "lift-features", "place")
"""Passes that take a network as it is: they look themselves, or leave parts to the client."""
QUANTIZING = ("quantize", "shrink")
"""Passes that a network has to be supported for; the second looks at nothing before it begins."""


class Supported(Instrument):
    """Asks, before the first pass that takes long, what ``quantize`` would ask after it.

    Not where something comes before ``quantize`` that may take the operator in question away: a pass of a
    plug-in, or layers that were named to be removed.

    Raises:
        UnsupportedError: A node of the encrypted part cannot be computed on encrypted data.
    """

    def __init__(self) -> None:
        self._pending = False

    @override
    def start(self, model: ir.Model, passes: Sequence[PassBase]) -> None:
        names = [pass_name(p) for p in passes]
        ends = [i + (n == "shrink") for i, n in enumerate(names) if n in QUANTIZING]
        before = passes[: ends[0]] if ends else ()
        own = all(type(p).__module__.startswith("onnx_fhe.") for p in before)
        named = any(pass_name(p) == "remove-layers" and getattr(p, "layers", ()) for p in before)
        self._pending = bool(before) and own and not named

    @override
    def before_pass(self, pass_: PassBase, model: ir.Model) -> None:
        if not self._pending or pass_name(pass_) in QUICK:
            return
        self._pending = False
        if level_of(model) is Level.FLOAT:
            require_supported(model)


def require_supported(model: ir.Model) -> None:
    """Refuse a normalized float model that ``quantize`` would refuse.

    Raises:
        UnsupportedError: A node of the encrypted part cannot be computed on encrypted data.
    """
    try:
        find_regions(model)
    except UnsupportedError as error:
        error.located(pass_name="quantize")
        raise
