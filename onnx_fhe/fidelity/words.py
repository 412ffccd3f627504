"""What was measured, in sentences for people."""

from __future__ import annotations

from collections.abc import Sequence

from .figures import Classes, Fidelity, Step
from .measure import Comparison
from .verdict import Finding, left_of, percent, title, worst

MAX_SENTENCES = 5
"""Sentences about what is wrong; the others are counted."""

HELP: dict[Step, tuple[str, str]] = {
    "": ("", ""),
    "removed": (
        "removing layers, neurons or weights",
        "remove less: leave out remove-layers, remove-neurons or prune, or give them a smaller tolerance"
        " (--preset accurate removes nothing)",
    ),
    "quantized": (
        "writing weights, inputs and activations in few bits",
        "give them more bits (--preset accurate, or quantize{weights=8 activations=8 inputs=8}), and"
        " calibrate on a few hundred typical samples without outliers",
    ),
    "rounded": (
        "the bits that are rounded away in front of tables",
        "let more bits reach the tables: --preset accurate, or insert-rounding{bits=7}",
    ),
    "noise": (
        "the errors of encryption",
        "tolerate fewer of them: a smaller --p-error, such as 1e-6",
    ),
    "ranges": (
        "values that leave the range of their accumulator",
        "give accumulators more room: a larger --range-margin, or --range-mode sound",
    ),
}
"""What a step is called, and what to do where it lost too much."""


def headline(found: Comparison, samples: int, given: int, what: str = "calibration samples") -> str:
    """What was found, in a sentence without its time; ``what`` are the samples."""
    on = f"on {samples} {what}" if samples == given else f"on {samples} of {given} {what}"
    if samples == 1:
        on = f"on one {what.removesuffix('s')}"
    parts = []
    if found.classes is not None and found.classes.certain:
        parts.append(f"{on} {percent(found.classes.agreement)} of the predictions are the network's")
        parts += _accuracy(found.classes)
    else:
        parts.append(f"{on} {_values(found)}")
        if found.classes is not None:
            parts.append(
                f"the largest of the outputs is the network's in {percent(found.classes.agreement)} of them"
            )
    return "; ".join(parts)


def _accuracy(found: Classes) -> list[str]:
    if found.accuracy is None or found.network_accuracy is None:
        return []
    return [f"accuracy {percent(found.accuracy)} instead of {percent(found.network_accuracy)}"]


def _values(found: Comparison) -> str:
    least = worst(found.outputs)
    if least is None:
        return "the network's output is always the same, so little can be compared"
    if least.same is not None:
        return f"{percent(least.same)} of the values of output {title(least)} are the network's"
    if not least.varies:
        return f"output {title(least)} is {least.median_error:.3g} off, where the network's never changes"
    which = f"output {title(least)}"
    if len(found.outputs) > 1:
        which += f", the worst of {len(found.outputs)},"
    return (
        f"{which} reproduces {percent(max(0.0, left_of(least)))} of what varies in the network's"
        f" (R^2 {left_of(least):.3f}); the mean error is {least.mean_error:.3g}, where the network's values"
        f" spread over {least.spread:.3g}"
    )


def worst_output(found: Fidelity) -> str:
    """The output that is followed least, where the headline does not name it."""
    least = found.worst
    if least is None or found.classes is None or not found.classes.certain or least.same is not None:
        return ""
    count = len(found.outputs) + found.left_out
    which = (
        f"Of its {count} outputs {title(least)} is followed least" if count > 1 else f"Output {title(least)}"
    )
    return (
        f"{which}: {percent(max(0.0, left_of(least)))} of what varies in the network's is reproduced (R^2"
        f" {left_of(least):.3f})"
        if least.varies
        else f"{which}: it is {least.median_error:.3g} off, where the network's never changes"
    )


def sentences(findings: Sequence[Finding]) -> tuple[str, ...]:
    """What is wrong."""
    found = [f.sentence for f in findings[:MAX_SENTENCES]]
    if len(findings) > MAX_SENTENCES:
        found.append(f"and {len(findings) - MAX_SENTENCES} more outputs like these")
    return tuple(found)


def advice(cause: Step) -> str:
    """What most likely helps."""
    what, do = HELP[cause]
    return f"most is lost by {what}: {do}" if what else ""


def with_seconds(found: Fidelity, seconds: float) -> str:
    """The headline of a circuit, with the time of a sample."""
    if not seconds:
        return found.headline
    shown = f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{found.headline}; {shown} a sample"
