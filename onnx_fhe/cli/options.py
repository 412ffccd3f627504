"""Options that several commands have, said once."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class RangeMode(str, Enum):
    """Where ranges of accumulators come from."""

    OBSERVED = "observed"
    SOUND = "sound"


class Mode(str, Enum):
    """How a program runs."""

    CLEAR = "clear"
    SIMULATE = "simulate"
    ENCRYPTED = "encrypted"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE_OR_FILE", help="Load a plug-in; may be given several times."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else.")
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limits",
        metavar="KEY=N",
        help="Raise a limit on what the model file may hold: bytes, nodes, nesting, dimensions, elements of a"
        " value, operations. May be given several times.",
    ),
]
Bind = Annotated[
    list[str] | None,
    typer.Option(
        "--bind",
        metavar="NAME=N",
        help="Size of a free axis of an input, by its name (or INPUT.AXIS); may be given several times.",
    ),
]
CALIBRATION_HELP = (
    "An .npz with one array for each model input under its name, samples on axis 0 (one array of any name"
    " will do for a single input)."
)
Calibration = Annotated[
    Path, typer.Option("--calibration", metavar="NPZ", help=CALIBRATION_HELP, show_default=False)
]
Backend = Annotated[str, typer.Option("--backend", metavar="NAME", help="Who makes the circuit.")]
RangeModes = Annotated[
    RangeMode,
    typer.Option(
        "--range-mode",
        help="Ranges of accumulators: observed on the calibration data, or sound (no input can overflow).",
    ),
]


def _margin(text: float | str) -> float | str:
    return text if text == "auto" else float(text)


Margin = Annotated[
    Any,
    typer.Option(
        "--range-margin",
        metavar="F",
        parser=_margin,
        help="Margin on each side of an observed range, as a share of its width; auto: after the tails of the"
        " calibration data, as far as a margin saves more than the resolution that it takes.",
    ),
]
Machine = Annotated[
    Path | None,
    typer.Option(
        "--machine",
        metavar="FILE",
        help="Predict times for the machine of this profile (`calibrate-cost -o FILE` there); by default for"
        " this one.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seeds every random choice of the passes.")]


def load_plugins(specs: list[str] | None) -> None:
    """Load the plug-ins that were named.

    Raises:
        PluginError: One cannot be loaded.
    """
    if specs:
        from ..ir.plugins.loading import load_plugin

        for spec in specs:
            load_plugin(spec)


def require_writable(path: Path) -> None:
    """Refuse an output path now that could not be written after minutes of work.

    Raises:
        OutputError: It cannot be written.
    """
    from contextlib import suppress

    from ..ir.paths import atomic_path

    class Enough(Exception):  # noqa: N818 - no error: it ends the attempt before anything takes the name
        pass

    with suppress(Enough), atomic_path(path):
        raise Enough
