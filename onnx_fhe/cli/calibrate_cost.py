"""``onnx-fhe calibrate-cost``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .options import Json, output_option, require_writable

if TYPE_CHECKING:
    from ..machine import Profile


def calibrate_cost(
    out: Annotated[
        Path | None,
        output_option(
            "FILE",
            "Write the profile here instead of to the user's cache, to use it for another machine's"
            " predictions (--machine FILE).",
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", min=1, help="Calls of each circuit; the best counts.")
    ] = 3,
    show: Annotated[
        bool, typer.Option("--show", help="Print the profile that predictions use now; measure nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure what bootstraps take on this machine, for predictions; a minute or two."""
    from ..machine import cache_file, this_machine, write_profile

    if show:
        profile, where = this_machine(), None
    else:
        where = out or cache_file()
        with output.working() as progress:
            from ..machine.measure import load, measure

            if out is not None:
                require_writable(out)
            busy = load()
            profile = measure(repeats, progress=progress)
            write_profile(profile, where)
        if busy > 0.5:
            output.warn([f"other programs were running (load {busy:.1f}): measure again on a quiet machine"])
    if json:
        output.print_json({"file": None if where is None else str(where), "profile": profile})
        return
    _show(profile, where)


def _show(profile: Profile, where: Path | None) -> None:
    output.say(profile.describe() if where is None else f"{where}: {profile.describe()}")
    output.facts(
        [
            ("keys", f"{profile.keygen_seconds_per_byte * 1e8 + profile.keygen_seconds:.2f} s for 100 MB"),
            ("one sample", f"uses {profile.loop_efficiency:.0%} of {profile.cores} cores"),
            ("many samples", f"use {profile.job_efficiency:.0%} of {profile.cores} cores"),
        ]
    )
    output.say()
    output.table(
        ["polynomial size", "dimension", "input dimension", "levels", "complexity (M)", "ms a bootstrap"],
        [
            (
                m.bootstrap.polynomial_size,
                m.bootstrap.glwe_dimension,
                m.bootstrap.input_lwe_dimension,
                m.bootstrap.level,
                round(m.complexity / 1e6, 1),
                round(m.milliseconds, 1),
            )
            for m in profile.measured
        ],
    )
