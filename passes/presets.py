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


TABLES = (
    "share-subexpressions,move-tables,merge-tables,remove-identity-tables,deduplicate-lookups,"
    "remove-constant-tables"
)
"""Passes that waste no bootstrap, in their order."""
TO_TABLES = f"lower-to-integer,fuse-tlu,{TABLES}"
"""From the qdq level to tables of all their bits."""

PRESETS = {
    "balanced": Preset(
        f"normalize,import-qat,quantize{{weights=6 activations=8 norm=15}},{TO_TABLES},"
        "insert-rounding{bits=auto},remove-constant-tables,analyze-bit-widths",
        "The fewest bits at each table that keep the outputs, and the classes, those of the float model on"
        " calibration data; the default.",
    ),
    "fast": Preset(
        "normalize,import-qat,remove-layers{tolerance=0.01},remove-neurons{ratio=0.5 tolerance=0.02},"
        f"quantize{{weights=4 activations=6 norm=15}},distill{{optional=true}},{TO_TABLES},"
        "insert-rounding{bits=auto tolerance=0.03 most=5},remove-constant-tables,analyze-bit-widths",
        "Layers and neurons that the others can make up for go first; then the rest is trained on the"
        " calibration inputs for half a minute or so, where there are 200 or more. A fraction of the time of"
        " balanced, for a point or so of accuracy.",
    ),
    "accurate": Preset(
        f"normalize,import-qat,quantize{{weights=6 activations=8}},{TO_TABLES},"
        "insert-rounding{bits=6 fill=full},remove-constant-tables,analyze-bit-widths",
        "The widest tables that Concrete takes without pain, for networks that lose too much at balanced;"
        " a bootstrap costs three to four times as much.",
    ),
}
"""Presets by name."""

DEFAULT = "balanced"
