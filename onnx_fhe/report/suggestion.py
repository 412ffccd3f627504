"""A piece of advice, and the text of the pass that follows it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..ir.errors import OnnxFheError
from ..manifest import Manifest
from ..passes.framework.base import Pass
from ..passes.framework.pipeline import parse_passes
from .layers import Layer


@dataclass(frozen=True)
class Advice:
    """Something to try.

    Attributes:
        title: What, in a few words.
        why: The numbers behind it.
        how: What to write, as text of a pipeline or as an option; may be empty.
        seconds: Saved for one sample, on one core; 0 where it is about accuracy.
        share: Saved of the circuit's time.
        bootstraps: Saved.
        price: What it may cost.
        layers: Those that it is about.
    """

    title: str
    why: str
    how: str = ""
    seconds: float = 0.0
    share: float = 0.0
    bootstraps: int = 0
    price: str = ""
    layers: tuple[Layer, ...] = ()


def changed_pass(manifest: Manifest, fresh: Pass, **options: Any) -> str:
    """The pass of the pipeline with other options, as text; a fresh one where the pipeline has none."""
    try:
        passes = parse_passes(manifest.pipeline)
    except OnnxFheError:
        # Of a plug-in that is not here.
        passes = []
    known = next((p for p in passes if isinstance(p, type(fresh))), fresh)
    if "layers" in options:
        options["layers"] = {**known.layers, **options["layers"]}  # type: ignore[attr-defined]
    return replace(known, **options).to_text()
