"""``onnx-fhe report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .options import (
    Circuit,
    Json,
    Machine,
    OriginalModel,
    Plugins,
    data_option,
    load_plugins,
    output_option,
    require_writable,
)

if TYPE_CHECKING:
    from ..tuning.frontier import Frontier


def report(
    circuit: Circuit,
    out: Annotated[Path, output_option("HTML", "Where the page goes.")],
    data: Annotated[
        Path | None,
        data_option(
            "Measure on this data instead of the calibration data; with 'labels' there are accuracies."
        ),
    ] = None,
    model: OriginalModel = None,
    frontier: Annotated[
        Path | None,
        typer.Option("--frontier", metavar="JSON", help="What `onnx-fhe tune` found, to show the trade-off."),
    ] = None,
    machine: Machine = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Write a page about a circuit, for people to look at: one HTML file that loads nothing."""
    with output.working():
        from ..machine import Profile
        from ..program import Program

        load_plugins(plugin)
        require_writable(out)
        known = None if frontier is None else read_frontier(frontier)
        profile = None if machine is None else Profile.load(machine)
        Program.load(circuit).report(out, data=data, model=model, frontier=known, profile=profile)
    if json:
        output.print_json({"file": str(out), "bytes": out.stat().st_size})
    else:
        output.say(f"{out}: open it in a browser")


def read_frontier(path: Path) -> Frontier:
    """What a search found.

    Raises:
        ArtifactError: There is no such file, or it is none.
    """
    from ..ir.errors import ArtifactError
    from ..tuning.frontier import Frontier

    try:
        return Frontier.from_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(
            "the result of a search cannot be read", file=str(path), found=error.strerror or ""
        ) from error
    except ArtifactError as error:
        raise error.located(file=str(path)) from error.__cause__
