"""``split``, ``keygen``, ``encrypt``, ``evaluate`` and ``decrypt``: two sides, and files between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .options import Circuit, Json, SampleLimit, batch_option, data_option, output_option, require_writable
from .speed import chosen, evaluating_on_dask, jobs_option, measured, way

if TYPE_CHECKING:
    from ..program import Program
    from ..sides.client import Client

ClientHalf = Annotated[
    Path, typer.Argument(metavar="MODEL.client", help="The client's half of a circuit.", show_default=False)
]
ServerHalf = Annotated[
    Path, typer.Argument(metavar="MODEL.server", help="The server's half of a circuit.", show_default=False)
]
SECRET_FOLDER = typer.Option(
    "--keys",
    metavar="FOLDER",
    help="Folder of the secret keys, which their owner alone may enter.",
    show_default=False,
)
"""The option of ``SecretFolder``, for a command that can do without."""
SecretFolder = Annotated[Path, SECRET_FOLDER]
Batch = Annotated[int, batch_option("Samples of one call, of a circuit for so many.")]


def split(
    circuit: Circuit,
    out: Annotated[
        Path | None,
        output_option("NAME", "Write NAME.client and NAME.server (default: named like the circuit)."),
    ] = None,
    json: Json = False,
) -> None:
    """Split a circuit in the half that its clients get and the half that computes."""
    with output.working():
        from ..program import Program

        target = circuit if out is None else out.with_name(f"{out.name}.fhe")
        files = half_files(target)
        for file in files.values():
            require_writable(file)
        write_halves(Program.load(circuit), target)
    sizes = {side: file.stat().st_size for side, file in files.items()}
    if json:
        output.print_json({side: {"file": str(f), "bytes": sizes[side]} for side, f in files.items()})
        return
    output.say(f"{files['client']}: for whoever holds the keys, {output.size(sizes['client'])}")
    output.say(f"{files['server']}: for whoever computes, {output.size(sizes['server'])}")


def half_files(circuit: Path) -> dict[str, Path]:
    """Where the halves of a circuit go: beside it, named like it."""
    return {side: circuit.with_suffix(f".{side}") for side in ("client", "server")}


def require_sides(backend: str, circuit: Path) -> None:
    """Refuse now what would fail after minutes of work.

    Raises:
        UnsupportedError: Circuits of the backend have no two sides.
        OutputError: A half cannot be written.
    """
    from ..backends.sides_registry import sides_of

    sides_of(backend)
    for file in half_files(circuit).values():
        require_writable(file)


def write_halves(program: Program, circuit: Path) -> None:
    """Write the halves of a program to ``half_files``.

    Raises:
        UnsupportedError: The backend has no two sides.
        OutputError: One cannot be written.
    """
    from ..sides.split import split as split_in_two

    client, server = split_in_two(program)
    files = half_files(circuit)
    client.save(files["client"])
    server.save(files["server"])


def keygen(
    client: ClientHalf,
    folder: SecretFolder,
    out: Annotated[
        Path, output_option("EVALUATION.keys", "Where the evaluation keys go, which the server gets.")
    ],
    batch: Batch = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Replace secret keys that are there; what they encrypted is lost.")
    ] = False,
    json: Json = False,
) -> None:
    """Make secret keys, and the evaluation keys for a server."""
    with output.working() as progress:
        from ..ir.errors import UserError
        from ..sides.client import Client
        from ..sides.keys import secret_file

        half = Client.load(client)
        require_writable(out)
        file = secret_file(folder, half.header.circuit(batch).parameters)
        if file.exists() and not force:
            raise UserError(
                "there are secret keys for this circuit already",
                file=str(file),
                do="use them, give another folder, or --force to replace them (what they encrypted is lost)",
            )
        progress("make keys", 0, 1)
        made = half.keygen(batch)
        # First the keys that cannot be made again of the others.
        half.save_keys(folder)
        made.save(out)
        progress("make keys", 1, 1)
    found = {
        "keys": made.id,
        "secret": {"file": str(file), "bytes": file.stat().st_size},
        "evaluation": {"file": str(out), "bytes": out.stat().st_size},
    }
    if json:
        output.print_json(found)
        return
    output.say(f"{file}: the secret keys; whoever has this file reads everything")
    output.say(f"{out}: the evaluation keys, for the server, {output.size(out.stat().st_size)}")


def encrypt(
    client: ClientHalf,
    folder: SecretFolder,
    data: Annotated[Path, data_option("An .npz with one array for each model input, samples on axis 0.")],
    out: Annotated[Path, output_option("INPUTS.enc", "Where the encrypted inputs go.")],
    batch: Batch = 1,
    limit: SampleLimit = None,
    json: Json = False,
) -> None:
    """Quantize and encrypt samples."""
    with output.working() as progress:
        from ..ir.data import Data, read_npz

        require_writable(out)
        half = _with_keys(client, folder, batch)
        given = read_npz(data)
        arrays = {k: v[:limit] for k, v in given.arrays.items()}
        made = half.encrypt(Data(arrays, None, given.file), batch, progress)
        made.save(out)
        warned = _clipped(half)
    size = out.stat().st_size
    if json:
        output.print_json(
            {"file": str(out), "bytes": size, "samples": made.samples, "clipped": half.clip.values}
        )
    else:
        output.say(f"{out}: {made.samples} encrypted samples, {output.size(size)}")
    output.warn(warned)


def evaluate(
    server: ServerHalf,
    inputs: Annotated[
        Path, typer.Argument(metavar="INPUTS.enc", help="What `onnx-fhe encrypt` wrote.", show_default=False)
    ],
    keys: Annotated[
        Path,
        typer.Option(
            "--evaluation-keys",
            metavar="EVALUATION.keys",
            help="The evaluation keys of whoever encrypted the inputs.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, output_option("RESULTS.enc", "Where the encrypted results go.")],
    jobs: Annotated[Any, jobs_option()] = 1,
    dask: Annotated[str | None, evaluating_on_dask()] = None,
    json: Json = False,
) -> None:
    """Compute on encrypted inputs; secret keys are refused."""
    with output.working() as progress:
        from ..sides.ciphertexts import Ciphertexts
        from ..sides.keys import EvaluationKeys
        from ..sides.server import Server

        require_writable(out)
        half = Server.load(server)
        given = EvaluationKeys.load(keys)
        asked = Ciphertexts.load(inputs)
        if dask is None:
            results, took = half.evaluate(asked, given, jobs, progress), half.evaluations
        else:
            from ..sides.dask_evaluator import DaskEvaluator

            with DaskEvaluator(dask, server.read_bytes()) as evaluator:
                results, took = evaluator.evaluate(asked, given, progress), evaluator.evaluations
        results.save(out)
    size = out.stat().st_size
    found = {"file": str(out), "bytes": size, "samples": results.samples}
    if json:
        output.print_json(found | ({} if took is None else measured(took)))
        return
    output.say(f"{out}: encrypted results of {results.samples} samples, {output.size(size)}")
    if took is not None:
        what = "a sample" if took.batch == 1 else f"a call of {took.batch} samples"
        output.facts(
            [
                *chosen({str(k): v for k, v in took.rates.items()}, took.jobs),
                ("latency", f"{took.latency:.3f} s {what}, {way(took.jobs)}"),
                ("throughput", f"{took.throughput:.3g} samples a second"),
            ]
        )


def decrypt(
    client: ClientHalf,
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS.enc", help="What `onnx-fhe evaluate` wrote.", show_default=False),
    ],
    folder: SecretFolder,
    out: Annotated[Path, output_option("OUTPUTS.npz", "Where the outputs of the network go.")],
    data: Annotated[
        Path | None,
        data_option("What was encrypted; with 'labels' the accuracy is told."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option("--inputs", metavar="INPUTS.enc", help="What was sent: other results are refused."),
    ] = None,
    json: Json = False,
) -> None:
    """Decrypt results, and compute the outputs of the network of them."""
    with output.working() as progress:
        from ..ir.data import Data, read_npz
        from ..ir.results import OWNERS_ALONE
        from ..scoring import accuracy
        from ..sides.ciphertexts import Ciphertexts, EncryptedResults

        require_writable(out)
        found = EncryptedResults.load(results)
        half = _with_keys(client, folder, found.header.batch)
        given = None if data is None else read_npz(data)
        arrays = None if given is None else Data({k: v[: found.samples] for k, v in given.arrays.items()})
        outputs = half.decrypt(found, arrays, None if inputs is None else Ciphertexts.load(inputs), progress)
        output.write_arrays(out, outputs)
        score = None
        if given is not None and given.labels is not None:
            score = accuracy(outputs, given.labels[: found.samples])
    if json:
        told: dict[str, Any] = {
            "file": str(out),
            "samples": found.samples,
            "accuracy": score,
            "results": half.header.results,
            "note": OWNERS_ALONE if half.header.results == "owner" else None,
        }
        output.print_json(told)
        return
    output.say(f"{out}: outputs of {found.samples} samples")
    if score is not None:
        output.say(f"accuracy {100 * score:.1f} %")
    if half.header.results == "owner":
        output.say(OWNERS_ALONE)


def _with_keys(client: Path, folder: Path, batch: int) -> Client:
    from ..sides.client import Client

    half = Client.load(client)
    half.load_keys(folder, batch)
    return half


def _clipped(half: Client) -> list[str]:
    if not half.clip.values:
        return []
    return [
        f"{half.clip.values} input values in {half.clip.samples} samples are outside the calibrated range;"
        " they were clipped to it"
    ]
