"""Writing the report of an artifact, with measurements on other data where that is given."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import onnx_ir as ir

from ..input_coercion import DataLike, as_data
from ..ir.data import Data
from ..ir.errors import UserError
from ..ir.load import load
from ..ir.matching import calibration_for
from ..ir.paths import write_bytes
from ..machine import Profile
from ..manifest import Manifest
from ..passes.framework.manager import PassManager
from ..record import Measurements
from ..tuning.frontier import Frontier
from .measuring import measure
from .page import render


def write(
    model: ir.Model,
    manifest: Manifest,
    path: str | os.PathLike[str],
    data: DataLike | None = None,
    source: str | os.PathLike[str] | None = None,
    frontier: Frontier | None = None,
    profile: Profile | None = None,
) -> None:
    """Write the report in one step; see ``Program.report``.

    Raises:
        UserError: There is a source and no data, or it is not what was compiled.
        DataError: The data does not fit the model.
        OutputError: ``path`` cannot be written.
    """
    if source is not None and data is None:
        raise UserError(
            "a network to compare with needs data to compare on",
            found="--model without --data",
            do="give both, or neither: then the report shows what was measured while compiling",
        )
    measured = None if data is None else _measured(model, manifest, as_data(data), source)
    html = render(model, manifest, frontier=frontier, measured=measured, profile=profile)
    write_bytes(path, html.encode("utf-8", errors="replace"))


def _measured(
    model: ir.Model, manifest: Manifest, data: Data, source: str | os.PathLike[str] | None
) -> Measurements:
    given = calibration_for(model, data)
    network = None
    if source is not None:
        found = hashlib.sha256(Path(source).read_bytes()).hexdigest() if Path(source).is_file() else ""
        if found and found != manifest.source.sha256:
            raise UserError(
                "this is not the network that was compiled",
                file=str(source),
                found=f"SHA-256 {found}",
                allowed=f"{manifest.source.file or 'the model'}, SHA-256 {manifest.source.sha256}",
            )
        bind = manifest.record.bind if manifest.record is not None else {}
        imported = load(source, bind=bind, shapes={k: v.shape for k, v in given.items()})
        network = PassManager.parse("normalize").run(imported).model
    p_error = manifest.p_error if manifest.p_error is not None else manifest.statistics.p_error
    return measure(model, given, source=network, labels=data.labels, p_error=p_error, file=data.file)
