"""Circuits whose results may be shared: the smallest error that the backend finds parameters for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import onnx_ir as ir

from .backends.base import Backend, Circuit, LowerOptions
from .ir.errors import LimitError, PipelineError
from .ir.ops import RoundBits
from .ir.results import SHARED_P_ERROR, SHARED_P_ERRORS, Results


def lowered(
    backend: Backend, model: ir.Model, options: LowerOptions, results: Results
) -> tuple[Circuit, LowerOptions, list[str]]:
    """The circuit of a model, and the errors that it was made with.

    Args:
        backend: Makes it.
        model: Integer level.
        options: As asked for.
        results: Who may see what is decrypted.

    Returns:
        The circuit, its options, and notes on errors other than those that were asked for.

    Raises:
        PipelineError: Results that are to be shared depend on the noise of encryption.
        LimitError: The backend finds no parameters.
    """
    if results == "owner":
        return backend.lower(model, options), options, []
    check_shareable(model, options.p_error)
    if options.p_error != SHARED_P_ERROR:
        return backend.lower(model, options), options, []
    return _smallest(lambda tried: backend.lower(model, tried), options)


def _smallest(
    lower: Callable[[LowerOptions], Circuit], options: LowerOptions
) -> tuple[Circuit, LowerOptions, list[str]]:
    refused: LimitError | None = None
    for p_error in SHARED_P_ERRORS:
        tried = replace(options, p_error=p_error)
        try:
            circuit = lower(tried)
        except LimitError as error:
            refused = refused or error
            continue
        notes = [
            "results: no parameters were found for a tolerated error of 2^-128;"
            f" 2^{math.log2(p_error):.0f} is the smallest of those that were tried"
        ]
        return circuit, tried, notes if refused else []
    assert refused is not None
    raise refused


def check_shareable(model: ir.Model, p_error: float | None) -> None:
    """Refuse a model of the integer level whose results depend on the noise of encryption.

    Args:
        model: Integer level.
        p_error: Tolerated error of a lookup, with what the model records.

    Raises:
        PipelineError: It rounds approximately, or tolerates errors that can be met.
    """
    for rounding in RoundBits.all_in(model):
        if rounding.lsbs_to_remove and not rounding.is_exact:
            raise PipelineError(
                "results that are shared must not depend on noise, as those of approximate rounding do",
                node=rounding.name,
                op=rounding.op_type,
                found="mode approximate",
                allowed="mode exact, or no rounding",
                do="compile from the float model, where insert-rounding rounds exactly by itself (mode=auto)",
            )
    if p_error is not None and p_error > SHARED_P_ERROR:
        raise PipelineError(
            "results that are shared need errors that nobody meets",
            found=f"a tolerated error of {p_error:g}, which the pipeline or the model sets",
            allowed=f"up to 2^-128 ({SHARED_P_ERROR:.3g})",
            do="leave set-p-error out of the pipeline",
        )
