"""``onnx-fhe run``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .options import (
    Circuit,
    Json,
    Mode,
    OriginalModel,
    Plugins,
    SampleLimit,
    batch_option,
    data_option,
    load_plugins,
    output_option,
    require_writable,
)
from .speed import chosen, evaluating_on_dask, jobs_option, measured, way

if TYPE_CHECKING:
    import numpy as np

    from ..program import Program
    from ..running import Result


def run(
    circuit: Circuit,
    data: Annotated[
        Path,
        data_option("An .npz with one array for each model input under its name, and 'labels' if known."),
    ],
    model: OriginalModel = None,
    mode: Annotated[
        Mode,
        typer.Option(
            "--mode", help="In the clear, with the errors of encryption simulated, or on ciphertexts."
        ),
    ] = Mode.CLEAR,
    limit: SampleLimit = None,
    jobs: Annotated[Any, jobs_option("Encrypted: s")] = 1,
    dask: Annotated[str | None, evaluating_on_dask("Encrypted: e")] = None,
    batch: Annotated[
        int,
        batch_option(
            "Encrypted: samples in one call of the circuit, which is compiled again for so many. They are all"
            " done at the end of it; small circuits do more samples a second so."
        ),
    ] = 1,
    out: Annotated[Path | None, output_option("OUT.npz", "Write the outputs.")] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Run a circuit on data."""
    with output.working() as progress:
        from ..fidelity.running import against, network_of
        from ..fidelity.samples import label_warnings
        from ..ir.data import read_npz
        from ..program import Program

        load_plugins(plugin)
        if out is not None:
            require_writable(out)
        program = Program.load(circuit)
        given = read_npz(data)
        network = None if model is None else network_of(program.manifest, model, given)
        result = program.run(given, mode.value, limit, progress, jobs, batch, dask)
        if out is not None:
            output.write_arrays(out, result.outputs)
        told = label_warnings(program.integer_model, given.labels)
        labels = None if told else given.labels
        found = report(program, result, labels, told)
        if network is not None:
            found["network"] = against(network, program, result, given, labels)
    if json:
        output.print_json(found)
    else:
        _show(found)
    output.warn(found["warnings"])


def report(
    program: Program, result: Result, labels: np.ndarray | None, told: Sequence[str] = ()
) -> dict[str, Any]:
    """What ``--json`` prints; ``agreement`` is with the integer model, and ``told`` is about the labels."""
    from ..fidelity.running import values_against_labels
    from ..scoring import accuracy, agreement

    model, count = program.integer_model, result.samples
    labels = None if labels is None else labels[:count]
    steps = {k: s for k, s in result.seconds.items() if k not in ("prepare", "keygen")}
    busy = sum(steps.values())
    each: float | dict[str, float] = busy / count
    rate = count / busy if busy else None
    encrypted: dict[str, Any] = {}
    if result.evaluations is not None:
        from ..machine import predict

        rate = result.evaluations.throughput
        encrypted = {
            **measured(result.evaluations),
            "predicted": predict(program.statistics, batch=result.evaluations.batch),
        }
        each = {
            # Keys are made once, not for each sample.
            "keygen": result.seconds["keygen"],
            **{k: result.seconds[k] / count for k in ("encrypt", "evaluate", "decrypt")},
        }
    return {
        "mode": result.mode,
        "samples": count,
        "accuracy": accuracy(result.outputs, labels, model),
        "accuracy_of_integer_model": accuracy(result.expected, labels, model),
        "agreement": agreement(result.outputs, result.expected, model),
        "agreement_with": "integer model",
        "values": values_against_labels(result, labels, model),
        "overflows": {
            "values": result.overflows.values,
            "samples": result.overflows.samples,
            "by_node": result.overflows.by_node,
        },
        "clipped": result.clipped,
        "clipped_samples": result.clip.samples,
        "samples_per_second": rate,
        "seconds_per_sample": each,
        "seconds": result.seconds,
        **encrypted,
        "warnings": [*told, *result.warnings],
    }


def _speed(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Latency and throughput, measured and predicted."""
    predicted, jobs, batch = found["predicted"], found["jobs"], found["batch"]
    alone = predicted.core_seconds if jobs > 1 else predicted.seconds
    rate = predicted.throughput if jobs > 1 else batch / predicted.seconds if predicted.seconds else 0.0
    how = way(jobs) if batch == 1 else f"calls of {batch} samples, {way(jobs)}"
    what = "a sample" if batch == 1 else "a call"
    return [
        *chosen(found["measured_rates"], jobs),
        ("latency", f"{found['latency']:.3f} s {what}, {how} ({alone:.3f} s predicted)"),
        ("first", f"{found['first']:.3f} s, with making the keys ready"),
        ("throughput", f"{found['samples_per_second']:.3g} samples a second ({rate:.3g} predicted)"),
        ("predicted by", predicted.profile),
    ]


def _fit(found: dict[str, float]) -> str:
    return f"R^2 {found['r2']:.4f}, mean error {found['mean_error']:.4g}"


def _network(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The network itself, on the same samples."""
    rows = [("network", found["headline"])]
    if found["values"] is not None:
        rows.append(("network's fit", f"{_fit(found['values'])} against the labels"))
    return rows


_MEANING = {
    "clear": "the integer model, in the clear",
    "simulate": "the circuit, with the errors of encryption simulated",
    "encrypted": "the circuit, on ciphertexts",
}


def _show(found: dict[str, Any]) -> None:
    output.say(f"{found['samples']} samples through {_MEANING[found['mode']]}")
    each = found["seconds_per_sample"]
    rows = []
    if found["accuracy"] is not None:
        rows.append(
            ("accuracy", f"{found['accuracy']:.1%} (integer model {found['accuracy_of_integer_model']:.1%})")
        )
    if found["values"] is not None:
        rows.append(("labels", _fit(found["values"])))
    if found["agreement"] is not None and found["mode"] != "clear":
        rows.append(
            (
                "agreement",
                f"{found['agreement']:.1%} of the predictions equal those of the integer model (which says"
                " that the circuit is computed right, and nothing of the network)",
            )
        )
    if "network" in found:
        rows += _network(found["network"])
    rows += [
        ("overflows", f"{found['overflows']['values']} values in {found['overflows']['samples']} samples"),
        ("clipped", f"{found['clipped']} input values in {found['clipped_samples']} samples"),
    ]
    if isinstance(each, dict):
        rows.append(("keys", f"{each['keygen']:.2f} s, once"))
        rows += [(step, f"{each[step]:.3f} s a sample") for step in ("encrypt", "decrypt")]
        rows += _speed(found)
    else:
        rows.append(("speed", f"{found['samples_per_second']:.0f} samples a second"))
    output.facts(rows)
