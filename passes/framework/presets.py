"""Pipelines that have a name. A preset may stand in a pipeline text like a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mend:
    """Other options of a preset's passes, for networks that it does not keep close enough to.

    Attributes:
        options: By name of the pass.
        words: What they are, for the note that tells it.
    """

    options: Mapping[str, Mapping[str, Any]]
    words: str


@dataclass(frozen=True)
class Preset:
    """A named pipeline.

    Attributes:
        text: The pipeline; it holds no presets itself.
        summary: One sentence for ``onnx-fhe passes``.
        mends: What ``compile`` tries, in this order, where the circuit strays from the network: cheap ones
            first.
    """

    text: str
    summary: str
    mends: tuple[Mend, ...] = ()


TABLES = (
    "share-subexpressions,move-tables,merge-tables,remove-identity-tables,deduplicate-lookups,"
    "remove-constant-tables"
)
"""Passes that waste no bootstrap, in their order."""
TO_TABLES = f"lower-to-integer,fuse-tlu,{TABLES}"
"""From the qdq level to tables of all their bits."""

PRESETS = {
    "balanced": Preset(
        "normalize,import-qat,remove-neurons{ratio=0.8 tolerance=auto},"
        f"quantize{{weights=6 activations=8 max-weight-norm=15}},{TO_TABLES},"
        "insert-rounding{bits=auto},remove-constant-tables,analyze-bit-widths",
        "Without the neurons that others make up for, the fewest bits at each table that keep the outputs,"
        " and the classes, those of the float model on calibration data; the default."
        " Where they stray, compile tries more neurons, finer weights and wider tables.",
        (
            Mend({"remove-neurons": {"tolerance": 0.005}}, "more neurons"),
            Mend({"remove-neurons": {"ratio": 0.0}}, "all neurons"),
            Mend({"quantize": {"max_weight_norm": 64.0}}, "finer weights"),
            Mend({"quantize": {"weights": 8, "max_weight_norm": None}}, "weights of 8 bits"),
            Mend(
                {"quantize": {"max_weight_norm": 64.0}, "insert-rounding": {"bits": 7, "range_fill": "full"}},
                "finer weights and tables of 7 bits",
            ),
        ),
    ),
    "fast": Preset(
        "normalize,import-qat,shrink,remove-constant-tables,analyze-bit-widths",
        "Layers and neurons that the others can make up for go first; then the rest is trained on the"
        " calibration inputs, where there are 200 or more, for half a minute, and up to four times. What"
        " would lose more than a point, by inputs that were held back, is not taken. A fraction of the time"
        " of balanced.",
    ),
    "accurate": Preset(
        f"normalize,import-qat,quantize{{weights=6 activations=8}},{TO_TABLES},"
        "insert-rounding{bits=6 range-fill=full},remove-constant-tables,analyze-bit-widths",
        "The widest tables that Concrete takes without pain, for networks that lose too much at balanced;"
        " a bootstrap costs three to four times as much.",
    ),
}
"""Presets by name."""

DEFAULT = "balanced"
"""Name of the preset that is taken where the user names no pipeline."""
