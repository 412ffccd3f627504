"""``ask``: samples through a service, encrypted and decrypted here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from . import output
from .options import Json, SampleLimit, batch_option, data_option, output_option, require_writable
from .sides import SECRET_FOLDER

TOKEN = "ONNX_FHE_TOKEN"
"""The variable of the environment that holds the token: other users see the arguments of a command."""


def ask(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Address of `onnx-fhe serve`.", show_default=False)
    ],
    data: Annotated[
        Path, data_option("An .npz with one array for each model input; with 'labels' the accuracy is told.")
    ],
    client: Annotated[
        Path | None,
        typer.Option("--half", metavar="MODEL.client", help="The client half [default: the service's]."),
    ] = None,
    folder: Annotated[Path | None, SECRET_FOLDER] = None,
    token: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help=f"Holds the token [default: ${TOKEN}]."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the model [default: by the client half]."),
    ] = None,
    limit: SampleLimit = None,
    batch: Annotated[int, batch_option("Samples of one call, of a circuit for so many.")] = 1,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="PEM", help="Believe this certificate of the service."),
    ] = None,
    out: Annotated[Path | None, output_option("OUTPUTS.npz", "Where the outputs of the network go.")] = None,
    json: Json = False,
) -> None:
    """Encrypt samples, have a service compute on them, and decrypt the results.

    Keys are made where --keys names a folder without; without --keys they are made for this run only.
    """
    with output.working() as progress:
        from ..ir.data import Data, read_npz
        from ..ir.results import OWNERS_ALONE
        from ..scoring import accuracy
        from ..sides.remote import RemoteProgram

        if out is not None:
            require_writable(out)
        given = read_npz(data)
        program = RemoteProgram(
            url,
            client,
            folder,
            _token(token),
            model,
            batch=batch,
            certificate=None if certificate is None else str(certificate),
        )
        result = program.run(Data(given.arrays, None, given.file), limit, progress)
        if out is not None:
            output.write_arrays(out, result.outputs)
        score = None
        if given.labels is not None:
            score = accuracy(result.outputs, given.labels[: result.samples])
    told: dict[str, Any] = {
        "model": program.model,
        "samples": result.samples,
        "accuracy": score,
        "clipped": result.clipped,
        "seconds": result.seconds,
        "warnings": result.warnings,
        "results": program.client.header.results,
        "note": OWNERS_ALONE if program.client.header.results == "owner" else None,
    }
    if json:
        output.print_json(told)
        return
    output.say(f"{result.samples} samples through {program.model} at {url}")
    rows = [] if score is None else [("accuracy", f"{score:.1%}")]
    output.facts(rows + [(step, f"{seconds:.2f} s") for step, seconds in result.seconds.items()])
    if program.client.header.results == "owner":
        output.say(OWNERS_ALONE)
    output.warn(list(result.warnings))


def _token(file: Path | None) -> str | None:
    from ..ir.errors import UserError

    if file is None:
        return os.environ.get(TOKEN)
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the token cannot be read", file=str(file), found=str(error)) from error
