"""``onnx-fhe opt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..ir.range_options import DEFAULT_MARGIN, RangeOptions
from . import output
from . import supervisor as watch
from .options import (
    CALIBRATION,
    PIPELINE,
    AcceptLoss,
    Bind,
    ClientFrom,
    ClientKind,
    ClientOption,
    ClientUntil,
    Json,
    Limits,
    Margin,
    Model,
    Plugins,
    RangeMode,
    RangeModes,
    Seed,
    load_plugins,
    output_option,
    require_writable,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

CHECK_SAMPLES = 64
"""Random inputs for ``--check`` where there is no calibration data."""


def opt(
    model: Model,
    pipeline: Annotated[str, PIPELINE],
    out: Annotated[Path, output_option("OUT.onnx", "Where the model goes.")],
    calibration: Annotated[Path | None, CALIBRATION] = None,
    print_between_passes: Annotated[
        bool,
        typer.Option("--print-between-passes", help="Print the model after each pass, on standard error."),
    ] = False,
    time_passes: Annotated[
        bool, typer.Option("--time-passes", help="Print how long each pass took.")
    ] = False,
    dump_dir: Annotated[
        Path | None, typer.Option("--dump-dir", metavar="DIR", help="Save the model after each pass.")
    ] = None,
    stop_after: Annotated[
        str | None, typer.Option("--stop-after", metavar="NAME", help="Stop after this pass.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Run the model after each pass and compare its outputs; with --calibration, refuse a result"
            " that computes something else than the network.",
        ),
    ] = False,
    accept_loss: AcceptLoss = False,
    client: ClientOption = ClientKind.INPUTS,
    client_until: ClientUntil = None,
    client_from: ClientFrom = None,
    range_mode: RangeModes = RangeMode.OBSERVED,
    range_margin: Margin = DEFAULT_MARGIN,
    seed: Seed = 0,
    bind: Bind = None,
    limits: Limits = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Run passes on a model and save what comes out, at whatever level that is."""
    with output.working() as progress, watch.contact(model, [calibration]):
        from ..client_share import ClientShare
        from ..fidelity.check import check_model, require_faithful
        from ..fidelity.samples import usable_labels
        from ..input_coercion import check_ranges, check_seed
        from ..ir.bind import parse_bindings
        from ..ir.calibration import Calibration
        from ..ir.data import read_npz
        from ..ir.guard import FileLimits
        from ..ir.level import Level, level_of
        from ..ir.load import load
        from ..ir.matching import calibration_for
        from ..ir.save import save
        from ..passes.framework.base import Context
        from ..passes.framework.differential import DifferentialCheck
        from ..passes.framework.instruments import Dump, Instrument, Print, Time, Verify
        from ..passes.framework.manager import PassManager

        load_plugins(plugin)
        check_ranges(range_mode.value, range_margin)
        check_seed(seed)
        require_writable(out)
        share = ClientShare.chosen(client.value, client_until or [], client_from or [])
        manager = share.applied(PassManager.parse(pipeline, stop_after=stop_after))
        data = None if calibration is None else read_npz(calibration)
        given = load(
            model,
            FileLimits().raised(limits or []),
            bind=parse_bindings(bind or []),
            shapes={} if data is None else {k: a.shape for k, a in data.arrays.items()},
        )
        arrays = None if data is None else calibration_for(given, data)
        timed, compared = Time(), None
        instruments: list[Instrument] = [watch.until_normalized()]
        if dump_dir is not None:
            instruments.append(Dump(dump_dir))
        if print_between_passes:
            instruments.append(Print())
        if check:
            compared = DifferentialCheck(arrays if arrays is not None else _random(given))
            instruments.append(compared)
        context = Context(
            calibration=None if arrays is None else Calibration(arrays, data.labels if data else None),
            seed=seed,
            ranges=RangeOptions(range_mode.value, range_margin),
            progress=progress,
        )
        # Outermost: it looks last, when a model that it refuses has been dumped and printed.
        result = manager.run(given, context, [Verify(arrays), *instruments, timed])
        level = str(level_of(result.model))
        fidelity = None
        if check and arrays is not None and level != Level.FLOAT:
            fidelity = check_model(given, result.model, arrays, usable_labels(given, context.labels))
            require_faithful(fidelity, accepted=accept_loss)
        save(result.model, out)
    if json:
        found: dict[str, Any] = {
            "file": str(out),
            "level": level,
            "modified": result.modified,
            "pipeline": manager.to_text(),
            "passes": [{"name": name, "seconds": seconds} for name, seconds in timed.seconds],
            "differences": None if compared is None else compared.differences,
            "fidelity": fidelity,
            "notes": result.context.notes,
        }
        output.print_json(found)
        return
    if fidelity is not None:
        output.say(f"{fidelity.headline[0].upper()}{fidelity.headline[1:]}.")
    output.say(f"{out}: {level} level, {len(result.model.graph)} nodes")
    if time_passes:
        output.say("\n" + timed.to_text())
    if compared is not None:
        output.say("\n" + compared.to_text())
    output.notes(result.context.notes)
    if fidelity is not None:
        output.warn(fidelity.sentences)


def _random(model: ir.Model) -> dict[str, np.ndarray]:
    from ..ir.runtime import to_proto
    from ..ir.sampling import random_inputs

    return random_inputs(list(to_proto(model).graph.input), CHECK_SAMPLES)
