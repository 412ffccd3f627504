"""A preset whose circuit strays from the network is tried with finer settings: the cheapest that mends it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import PassBase

from .analysis.cost.cost import estimate
from .fidelity.causes import Steps
from .fidelity.check import expected_fidelity
from .fidelity.figures import Fidelity
from .fidelity.verdict import left_of, percent
from .ir.errors import OnnxFheError
from .passes.framework.manager import PassManager, PipelineResult
from .passes.framework.pipeline import pass_name
from .passes.framework.presets import PRESETS, Mend
from .passes.quantize.auto import LARGE_WEIGHTS
from .report.recording import Recorder

MAX_PRICE_RATIO = 2.0
"""A mend may cost so many times what the preset does: past that it is the user's to decide, whom the warning
tells what helps."""
WORTHWHILE_LOSS_SHARE = 0.8
"""What is lost has to come down to this share where the circuit strays all the same."""
LITTLE_LOSS = 0.05
"""Share of an output's variance: where no more than this is lost of any output, a warning is of something
else, a few samples far off. An R^2 of 0.95 is to be kept."""
NEARLY_LITTLE_LOSS = 0.045
"""The same for values: they lose a little more on new samples than on those of calibration."""


@dataclass(frozen=True)
class Attempt:
    """One run of a pipeline.

    Attributes:
        manager: The pipeline.
        result: What it made.
        recorder, steps: What watched it.
    """

    manager: PassManager
    result: PipelineResult
    recorder: Recorder
    steps: Steps


def mended(
    preset: str,
    first: Attempt,
    again: Callable[[PassManager], Attempt],
    source: ir.Model,
    data: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    p_error: float,
) -> Attempt:
    """The attempt that is compiled, with a note of what was changed: ``first`` where nothing does better.

    Args:
        preset: Name of the preset that ``first`` ran.
        first: The preset as it stands.
        again: Runs another pipeline.
        source: The network as it was imported.
        data: Calibration data by input name, samples on axis 0.
        labels: (samples) classes, where known.
        p_error: Tolerated error of a lookup.
    """
    mends = PRESETS[preset].mends if preset in PRESETS else ()
    weights = (v.const_value for v in source.graph.initializers.values())
    if not mends or sum(w.size for w in weights if w is not None) > LARGE_WEIGHTS:
        return first  # another attempt would take minutes: the warning stands
    try:
        before = expected_fidelity(source, first.result.model, data, labels, p_error)
    except OnnxFheError:  # the network as it was given does not run by itself
        return first
    if not _strays(before):
        return first
    price = estimate(first.result.model).complexity
    chosen, best, words = first, before, ""
    for mend in mends:
        try:
            tried = again(_changed(first.manager, mend))
            found = expected_fidelity(source, tried.result.model, data, labels, p_error)
        except OnnxFheError:  # larger weights may leave sums that float32 does not hold
            continue
        cost = estimate(tried.result.model).complexity
        if cost > MAX_PRICE_RATIO * price:
            continue
        good = found.verdict == "good" and not _strays(found)
        # Where it strays all the same, a circuit that costs more has to lose as much less.
        if good or 1 - _left(found) < min(WORTHWHILE_LOSS_SHARE, price / max(cost, 1)) * (1 - _left(best)):
            chosen, best, words = tried, found, mend.words
        if good:
            break
    if words:
        now = estimate(chosen.result.model).complexity
        kept, was = percent(_left(best)), percent(_left(before))
        chosen.result.context.notes.append(
            f"{preset}: the circuit strayed from the network, so {words} were taken: they keep {kept} of the"
            f" predictions, or of what varies in the worst output, rather than {was}, for"
            f" {now / max(price, 1):.1f} times the operations"
        )
    return chosen


def _strays(found: Fidelity) -> bool:
    """Whether a circuit loses enough for a mend to be looked for."""
    if found.classes is not None and found.classes.certain:
        return found.verdict != "good" and 1 - _left(found) > LITTLE_LOSS
    r2 = None if found.worst is None else found.worst.r2
    return 1 - min(_left(found), 1.0 if r2 is None else r2) > NEARLY_LITTLE_LOSS


def _left(found: Fidelity) -> float:
    """What is left of the worst output, or of the predictions, if that is less."""
    agreement = found.classes.agreement if found.classes is not None and found.classes.certain else 1.0
    return min(max(0.0, x) for x in (left_of(found.worst) if found.worst else 1.0, agreement))


def _changed(manager: PassManager, mend: Mend) -> PassManager:
    def of(pass_: PassBase) -> PassBase:
        options = mend.options.get(pass_name(pass_))
        return pass_ if options is None else dataclasses.replace(pass_, **options)  # type: ignore[type-var]

    passes: Sequence[PassBase] = [of(p) for p in manager.passes]
    return PassManager(passes, manager.instruments)
