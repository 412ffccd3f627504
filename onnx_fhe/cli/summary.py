"""What an artifact is, for people and for programs: ``compile`` and ``inspect`` print it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backends.statistics import CircuitStatistics
from ..fidelity.words import with_seconds, worst_output
from ..machine import Prediction, Profile, predict
from ..manifest import Manifest
from ..overflow import in_words
from . import output

RESULTS_IN_WORDS = {
    "owner": "for the owner of the keys alone",
    "shared": "may be shared: errors are too rare to be met, and nothing depends on the noise",
}
"""Who may see what is decrypted."""


def profile_of(machine: Path | None) -> Profile | None:
    """The profile that ``--machine`` names.

    Raises:
        DataError: It cannot be read.
    """
    return None if machine is None else Profile.load(machine)


def report(manifest: Manifest, file: str, profile: Profile | None = None) -> dict[str, Any]:
    """A manifest as ``compile --json`` and ``inspect --json`` print it.

    ``p_error`` and ``global_p_error`` are what was asked for, and what is predicted where nothing was.
    """
    found = manifest.statistics
    return {
        "file": file,
        "source": manifest.source,
        "backend": manifest.backend,
        "fidelity": manifest.fidelity,
        "self_test": manifest.self_test,
        "programmable_bootstraps": found.programmable_bootstraps,
        "complexity": found.complexity,
        "max_table_bits": found.max_table_bits,
        "max_accumulator_bits": found.max_accumulator_bits,
        "mean_accumulator_bits": found.mean_accumulator_bits,
        "p_error": manifest.p_error if manifest.p_error is not None else found.p_error,
        "global_p_error": (
            manifest.global_p_error if manifest.global_p_error is not None else found.global_p_error
        ),
        "predicted_p_error": found.p_error,
        "predicted_global_p_error": found.global_p_error,
        "security_level": manifest.security_level,
        "results": manifest.results,
        "client": manifest.client,
        "rounding": manifest.rounding,
        "range_mode": manifest.range_mode,
        "range_margin": manifest.range_margin,
        "expected_overflow": manifest.expected_overflow,
        "seed": manifest.seed,
        "pipeline": manifest.pipeline,
        "layers": found.layers,
        "parameter_sets": found.parameter_sets,
        "evaluation_key_bytes": found.evaluation_key_bytes,
        "input_bytes": found.input_bytes,
        "output_bytes": found.output_bytes,
        "predicted": predict(found, profile),
        "batches": [
            {"samples": b.samples, "predicted": predict(found, profile, batch=b.samples)}
            for b in manifest.batches
        ],
        "inputs": manifest.inputs,
        "outputs": manifest.outputs,
        "notes": manifest.notes,
        "warnings": manifest.warnings,
    }


def expected(found: Prediction) -> list[tuple[str, str]]:
    """What is predicted, in words."""
    cores = "one core" if found.cores == 1 else f"{found.cores} cores"
    return [
        (
            "expected",
            f"{found.seconds:.2g} s for one sample on {cores}, or {found.throughput:.2g} samples a second;"
            f" keys made in {found.keygen_seconds:.1f} s; {found.memory_bytes / 1e9:.1f} GB of memory",
        ),
        ("timed by", found.profile),
    ]


def show_promise(manifest: Manifest, profile: Profile | None = None) -> None:
    """Print what somebody who knows no cryptography wants to know first, one sentence a line."""
    price = predict(manifest.statistics, profile)
    lines = []
    if manifest.fidelity is not None:
        lines += [
            with_seconds(manifest.fidelity, price.seconds if manifest.statistics.complexity else 0.0),
            worst_output(manifest.fidelity),
        ]
    if manifest.self_test is not None:
        lines.append(manifest.self_test.sentence)
    for line in filter(None, lines):
        output.say(f"{line[0].upper()}{line[1:]}.")


def show_manifest(manifest: Manifest, profile: Profile | None = None) -> None:
    """Print what a program costs and how it was made."""
    found = manifest.statistics
    whole = (
        ""
        if found.global_p_error is None
        else f"; for the whole circuit {found.global_p_error:.2g} is predicted"
    )
    each = f"{manifest.p_error:g} for each lookup" if manifest.p_error is not None else ""
    wanted = (
        f"{manifest.global_p_error:g} for the whole circuit" if manifest.global_p_error is not None else ""
    )
    margin = f", margin {manifest.range_margin}" if manifest.range_mode == "observed" else ""
    output.facts(
        [
            ("bootstraps", f"{found.programmable_bootstraps} for one sample"),
            ("pipeline", manifest.pipeline),
            ("backend", f"{manifest.backend}, {manifest.security_level} bits of security"),
            ("p_error", ", ".join(t for t in (each, wanted) if t) + whole),
            ("results", RESULTS_IN_WORDS[manifest.results]),
            *([("client", manifest.client)] if manifest.client else []),
            ("ranges", f"{manifest.range_mode}{margin}"),
            ("overflow", in_words(manifest.expected_overflow)),
            ("rounding", manifest.rounding),
            ("complexity", f"{found.complexity / 1e9:.2f} G" if found.complexity else "not known"),
            ("tables", f"{found.max_table_bits} bits at most"),
            (
                "accumulators",
                f"{found.max_accumulator_bits} bits at most, {found.mean_accumulator_bits:.1f} in the mean",
            ),
            (
                "sizes",
                f"evaluation keys {_keys(found, profile)}, input {output.size(found.input_bytes)}, "
                f"output {output.size(found.output_bytes)} for each sample",
            ),
            *(expected(predict(found, profile)) if found.complexity else []),
            *_batches(manifest, profile),
        ]
    )
    output.say()
    output.table(
        ["layer", "operator", "accumulator bits", "table bits", "bootstraps"],
        [
            (x.name, x.operator, x.accumulator_bits, x.table_bits, x.programmable_bootstraps)
            for x in found.layers
        ],
    )
    output.notes(manifest.notes)


def _batches(manifest: Manifest, profile: Profile | None) -> list[tuple[str, str]]:
    """What calls of several samples cost, in words."""
    rows = []
    for n in (b.samples for b in manifest.batches):
        cost = predict(manifest.statistics, profile, batch=n)
        rows.append(
            (
                f"--batch {n}",
                f"{cost.bootstraps} bootstraps a call, {cost.seconds:.2g} s on all cores;"
                f" {cost.throughput:.2g} samples a second with a call on each core",
            )
        )
    return rows


def _keys(found: CircuitStatistics, profile: Profile | None) -> str:
    """The keys as they are sent, and as they are used; Concrete's own figure where no more is known."""
    if not found.steps:
        return output.size(found.evaluation_key_bytes)
    sizes = predict(found, profile)
    return f"{output.size(sizes.key_bytes)} to send ({output.size(sizes.expanded_key_bytes)} in use)"
