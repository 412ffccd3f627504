"""Pipelines that have a name. A preset may stand in a pipeline text like a pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A named pipeline.

    Attributes:
        text: The pipeline; it holds no presets itself.
        summary: One sentence for ``onnx-fhe passes``.
    """

    text: str
    summary: str


PRESETS = {
    "balanced": Preset(
        "normalize,quantize{weights=4 activations=3 inputs=4},lower-to-integer,fuse-tlu,"
        "insert-rounding{bits=4},analyze-bit-widths",
        "Small tables that keep the accuracy of most networks within a point or two; the default.",
    ),
    "accurate": Preset(
        "normalize,quantize{weights=6 activations=5 inputs=6},lower-to-integer,fuse-tlu,"
        "insert-rounding{bits=6},analyze-bit-widths",
        "The widest tables that Concrete takes without pain, for networks that lose too much at balanced.",
    ),
}
"""Presets by name."""

DEFAULT = "balanced"
