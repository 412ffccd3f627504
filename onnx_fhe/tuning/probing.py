"""Looking at a model before the search: how many layers can go, and what the layers are called then."""

from __future__ import annotations

import importlib.util
from contextlib import suppress

from ..analysis.regions.linear import linear_of
from ..ir.errors import OnnxFheError, PipelineError
from ..ir.level import Level, level_of
from ..ir.ops import TableLookup
from ..passes.compress.remove_layers.search import bootstraps
from ..passes.framework.presets import TO_TABLES
from ..passes.import_qat.detect import is_foreign
from .clock import OutOfTimeError, bounded
from .space import ASSUMED_P_ERROR, P_ERRORS, Layers, Space
from .trying import Tester

MAX_REMOVED_LAYERS = 16
"""Layers that the search removes at most."""
PROBING_SECONDS = 30.0
"""Time that looking for them may take."""
MIN_DISTILLED_SAMPLES = 32
"""Calibration samples that ``distill`` needs."""


def probe(
    tester: Tester,
    *,
    distill: bool = True,
    p_error: float | None = None,
    seconds: float = float("inf"),
) -> Space:
    """What may be chosen for a model.

    Args:
        tester: Holds the model and its calibration data.
        distill: Whether students may be trained, where PyTorch is there.
        p_error: Tolerated error of a lookup; None to search it.
        seconds: That looking for layers to remove may take.

    Raises:
        PipelineError: The model is of the integer level.
        OnnxFheError: The model cannot be compiled at all.
    """
    if level_of(tester.source) is Level.INTEGER:
        raise PipelineError(
            "there is nothing to tune in a model of the integer level",
            allowed="a float model, or one that came quantized",
            do="give the model as it was exported",
        )
    quantized = is_foreign(tester.source) or level_of(tester.source) is Level.QDQ
    samples = len(next(iter(tester.task.calibration.values())))
    trains = distill and samples >= MIN_DISTILLED_SAMPLES and importlib.util.find_spec("torch") is not None
    errors = P_ERRORS if p_error is None else (p_error,)
    assumed = ASSUMED_P_ERROR if p_error is None else p_error
    if quantized:
        return Space((_layers(tester, "normalize,import-qat", ""),), True, trains, errors, assumed)
    found = [_layers(tester, "normalize", _PLAIN)]
    # What is known when the time is over is what may be chosen.
    with suppress(OutOfTimeError), bounded(min(PROBING_SECONDS, seconds)):
        _look(tester, found)
    return Space(tuple(found), False, trains, errors, assumed)


def _look(tester: Tester, found: list[Layers]) -> None:
    """Append what is left for each number of layers that can be removed."""
    before = bootstraps(tester.model_after("normalize"))
    for count in range(1, MAX_REMOVED_LAYERS + 1):
        text = f"normalize,remove-layers{{count={count}}}"
        try:
            left = bootstraps(tester.model_after(text))
            if left >= before or not left:
                return
            found.append(_layers(tester, text, _PLAIN))
        except OnnxFheError:
            # What cannot be removed is no reason not to search among the rest.
            return
        before = left


_PLAIN = "quantize{weights=4 inputs=4 method=nearest adapt=0}"


def _layers(tester: Tester, begin: str, quantize: str) -> Layers:
    """Names of what an integer model has that begins so."""
    text = ",".join(t for t in (begin, quantize, TO_TABLES) if t)
    linear = [str(n.name) for n in tester.model_after(begin).graph if linear_of(n) is not None]
    tables = [t.title[0] for t in TableLookup.all_in(tester.model_after(text))]
    return Layers(tuple(linear), tuple(dict.fromkeys(tables)))
