"""What figures are worth: good, a warning, or a collapse (docs/design/fidelity.md says why these limits)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..analysis.outputs.classes import MIN_JUDGED_SAMPLES, MIN_OTHER_CLASS_SAMPLES
from .figures import Classes, OutputFigures, Verdict
from .measure import Comparison

MIN_R2 = 0.9
"""R^2 of an output that varies, below which it is a warning."""
COLLAPSED_R2 = 0.5
"""R^2 of an output that varies, below which it is a collapse."""
MIN_AGREEMENT = 0.95
"""Share of equal predictions below which it is a warning, unless labels show that nothing is lost."""
MAX_ACCURACY_LOSS = 0.02
"""Accuracy that may be lost without a warning."""
CHANCE_KAPPA = 0.25
"""Cohen's kappa that counts as near chance, where even two standard errors more do not leave it."""
UNCHANGED_KAPPA = 0.8
"""Cohen's kappa from which on, two standard errors less too, predictions are as they were."""
MIN_COLLAPSE_SAMPLES = 8
"""Samples that a collapse takes; for classes it takes ``MIN_OTHER_CLASS_SAMPLES`` of other classes than the
most common one."""
FEW_FAR_OFF_SHARE = 0.05
"""Share of the samples, up to which those that are far off are named."""
OFF_SPREADS = 0.1
"""Error of a value that does not vary, in spreads of its output, from which on it is a warning."""
COLLAPSED_SPREADS = 0.5
"""The same error, from which on it is a collapse."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        verdict: What it is worth.
        sentence: What it is.
        weight: The larger the worse, among findings of one verdict.
    """

    verdict: Verdict
    sentence: str
    weight: float


def judge(found: Comparison, samples: int) -> list[Finding]:
    """All that is wrong, the worst first.

    Args:
        found: What was measured.
        samples: On how many.
    """
    safe = _safe_scores(found, samples)
    of_outputs = [_of_output(o, samples, safe == o.name) for o in found.outputs]
    findings = [f for f in of_outputs if f is not None]
    if found.far_count and found.far_count <= FEW_FAR_OFF_SHARE * samples and findings:
        findings.append(Finding("warning", _far(found), -1.0))
    if found.classes is not None:
        findings += _of_classes(found.classes, samples)
    return sorted(findings, key=lambda f: (f.verdict != "collapse", -f.weight))


def worst(outputs: tuple[OutputFigures, ...]) -> OutputFigures | None:
    """The output that is followed least, of those that matter; None where nothing varies and all is right."""
    judged = [
        o for o in outputs if (o.varies and not o.minor) or (not o.varies and left_of(o) < 1 - OFF_SPREADS)
    ]
    return min(judged or [o for o in outputs if o.varies], key=left_of, default=None)


def left_of(output: OutputFigures) -> float:
    """What is left of an output in the circuit: 1 is all; robust R^2, or the share of equal classes.

    For a value that does not vary it is 1 minus its error in spreads of the other values of its output.
    """
    if output.same is not None:
        return output.same
    if not output.varies:
        return 1 - output.median_error / output.scale if output.scale else 1.0
    found = output.robust_r2 if output.robust_r2 is not None else output.r2
    return found if found is not None else 1.0


def percent(share: float) -> str:
    """A share; what is not all is never 100 %."""
    shown = f"{100 * share:.1f}"
    if shown == "100.0":
        shown = "100" if share == 1 else "99.9"
    return f"{shown} %"


def title(output: OutputFigures) -> str:
    """How a sentence names an output."""
    return repr(output.name) if output.index is None else f"{output.name!r}[{output.index}]"


def _safe_scores(found: Comparison, samples: int) -> str:
    """The output of class scores, where what they are for is known to be as it was: the predictions."""
    classes = found.classes
    if classes is None or classes.kappa is None or not classes.certain or samples < MIN_COLLAPSE_SAMPLES:
        return ""
    sure = (
        classes.others >= MIN_OTHER_CLASS_SAMPLES
        and classes.kappa - 2 * classes.kappa_error >= UNCHANGED_KAPPA
    )
    return found.scores if sure else ""


def _off(output: OutputFigures, samples: int, sentence: str) -> Finding:
    """An output that hardly varies: what counts is its error in spreads of the others."""
    collapsed = output.median_error > COLLAPSED_SPREADS * output.scale and samples >= MIN_COLLAPSE_SAMPLES
    weight = output.median_error / max(output.scale, 1e-30)
    return Finding("collapse" if collapsed else "warning", sentence, weight)


def _of_output(output: OutputFigures, samples: int, safe: bool) -> Finding | None:
    """What is wrong with an output, by the kind of its values; None where it is as it should be."""
    if output.same is not None:
        return _of_whole_numbers(output, samples, output.same)
    if not output.varies:
        if output.median_error <= OFF_SPREADS * output.scale:
            return None
        return _off(
            output,
            samples,
            f"output {title(output)} is the same for every sample in the network, and"
            f" {output.median_error:.3g} off in the circuit (the outputs spread over {output.scale:.3g})",
        )
    if output.minor:
        if left_of(output) >= COLLAPSED_R2 and output.median_error <= OFF_SPREADS * output.scale:
            return None
        return _off(
            output,
            samples,
            f"output {title(output)} varies little beside the others, and the circuit does not follow it"
            f" ({_r2(output)})",
        )
    return _of_numbers(output, samples, safe)


def _of_whole_numbers(output: OutputFigures, samples: int, same: float) -> Finding | None:
    """Of an output whose values are the network's or others, such as classes."""
    name = title(output)
    if output.varies and output.constant and samples >= MIN_COLLAPSE_SAMPLES:
        return Finding("warning", f"output {name} is the same for every sample in the circuit", 1.0)
    if output.kappa is None or same >= MIN_AGREEMENT:
        return None
    collapsed = output.kappa < CHANCE_KAPPA and samples >= MIN_OTHER_CLASS_SAMPLES
    told = f"{percent(1 - same)} of the values of output {name} are others than the network's"
    told += ", which is little better than guessing" if collapsed else ""
    return Finding("collapse" if collapsed else "warning", told, 1 - same)


def _of_numbers(output: OutputFigures, samples: int, safe: bool) -> Finding | None:
    """Of an output that varies as much as others do: how closely the circuit follows it."""
    name, measured = title(output), left_of(output)
    certain = output.robust_r2 is not None and samples >= MIN_COLLAPSE_SAMPLES
    if measured < COLLAPSED_R2:
        what = "is the same for every sample" if output.constant else "does not follow the network"
        told = f"output {name} {what} in the circuit ({_r2(output)})"
        if not certain:
            told += "; there are too few samples that differ to be certain"
        elif safe and not output.constant:
            certain, told = False, f"{told}, but the predictions made of it are the network's"
        return Finding("collapse" if certain else "warning", told, 1 - measured)
    if measured < MIN_R2:
        told = f"output {name} follows the network loosely ({_r2(output)})"
        return Finding("warning", told, 1 - measured)
    if output.r2 is not None and output.r2 < COLLAPSED_R2:
        return Finding(
            "warning",
            f"output {name} follows the network on most samples, and on a few it is far off ({_r2(output)};"
            f" without the worst twentieth {output.robust_r2:.3f})",
            0.5,
        )
    return None


def _r2(output: OutputFigures) -> str:
    measured = left_of(output)
    return f"R^2 {measured:.3f}" if measured > -99 else "R^2 below -99"


def _far(found: Comparison) -> str:
    named = ", ".join(map(str, found.far))
    more = f" and {found.far_count - len(found.far)} more" if found.far_count > len(found.far) else ""
    many = "calibration sample" if found.far_count == 1 else "calibration samples"
    return f"{many} {named}{more} (counted from 0) {'is' if found.far_count == 1 else 'are'} far off"


def _of_classes(found: Classes, samples: int) -> Iterator[Finding]:
    near_chance = found.kappa is not None and found.kappa + 2 * found.kappa_error < CHANCE_KAPPA
    if (
        found.certain
        and (near_chance or found.predicted == 1)
        and found.others >= MIN_OTHER_CLASS_SAMPLES
        and samples >= MIN_COLLAPSE_SAMPLES
    ):
        yield Finding(
            "collapse",
            "the circuit predicts only one class, whatever the sample"
            if found.predicted == 1
            else f"the circuit predicts the network's class in {percent(found.agreement)} of the samples,"
            " which is little more than guessing would",
            2 - found.agreement,
        )
        return
    if found.certain and found.others < MIN_OTHER_CLASS_SAMPLES and samples >= MIN_JUDGED_SAMPLES:
        few = f"in only {found.others} samples" if found.others else "in no sample"
        yield Finding(
            "warning",
            f"the network predicts another class than the most common one {few}, so that little is known of"
            " how the circuit tells classes apart; give samples of every class",
            0.3,
        )
    lost = found.lost / samples
    harmless = found.accuracy is not None and lost <= MAX_ACCURACY_LOSS / 2
    if found.lost > 1 and lost > MAX_ACCURACY_LOSS:
        yield Finding("warning", f"{percent(lost)} of the accuracy is lost", lost + 0.5)
    elif found.certain and found.agreement < MIN_AGREEMENT and not harmless:
        yield Finding(
            "warning",
            f"the circuit predicts another class than the network in {percent(1 - found.agreement)} of the"
            " samples",
            1 - found.agreement,
        )
