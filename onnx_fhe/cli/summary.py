"""What an artifact is, for people and for programs: ``compile`` and ``inspect`` print it."""

from __future__ import annotations

from typing import Any

from ..manifest import Manifest
from . import output


def report(manifest: Manifest, file: str) -> dict[str, Any]:
    """A manifest as ``compile --json`` and ``inspect --json`` print it.

    ``p_error`` and ``global_p_error`` are what was asked for, and what is predicted where nothing was.
    """
    found = manifest.statistics
    return {
        "file": file,
        "source": manifest.source,
        "backend": manifest.backend,
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
        "rounding": manifest.rounding,
        "range_mode": manifest.range_mode,
        "range_margin": manifest.range_margin,
        "seed": manifest.seed,
        "pipeline": manifest.pipeline,
        "layers": found.layers,
        "parameter_sets": found.parameter_sets,
        "evaluation_key_bytes": found.evaluation_key_bytes,
        "input_bytes": found.input_bytes,
        "output_bytes": found.output_bytes,
        "inputs": manifest.inputs,
        "outputs": manifest.outputs,
        "notes": manifest.notes,
    }


def show_manifest(manifest: Manifest) -> None:
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
    margin = f", margin {manifest.range_margin:g}" if manifest.range_mode == "observed" else ""
    output.facts(
        [
            ("pipeline", manifest.pipeline),
            ("backend", f"{manifest.backend}, {manifest.security_level} bits of security"),
            ("p_error", ", ".join(t for t in (each, wanted) if t) + whole),
            ("ranges", f"{manifest.range_mode}{margin}"),
            ("rounding", manifest.rounding),
            ("complexity", f"{found.complexity / 1e9:.2f} G" if found.complexity else "not known"),
            ("tables", f"{found.max_table_bits} bits at most"),
            (
                "accumulators",
                f"{found.max_accumulator_bits} bits at most, {found.mean_accumulator_bits:.1f} in the mean",
            ),
            (
                "sizes",
                f"evaluation keys {_size(found.evaluation_key_bytes)}, input {_size(found.input_bytes)}, "
                f"output {_size(found.output_bytes)} for each sample",
            ),
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


def _size(count: int) -> str:
    if count >= 10**6:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e3:.0f} kB"
