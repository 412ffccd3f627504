"""Compiling a plan with Concrete, with the cheapest of its parameter strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from concrete import fhe
from concrete.fhe.compilation.configuration import SecurityLevel

from ...ir.errors import UserError
from ..base import LowerOptions
from ..concrete_runtime.scratch import removed_with
from ..concrete_runtime.store import Port
from .bounds import DeclaredRanges, RoundedOutputs
from .emit import Emitter
from .linking import unlinked
from .plan import Plan
from .requirements import refused

NORM_STRATEGY_SHARE = 0.95
"""More parameter sets mean larger keys: they must bring the complexity below this share."""

_STRATEGIES: dict[str, dict[str, Any]] = {
    "mono": {"parameter_selection_strategy": fhe.ParameterSelectionStrategy.MONO},
    "multi": {
        "parameter_selection_strategy": fhe.ParameterSelectionStrategy.MULTI,
        "multi_parameter_strategy": fhe.MultiParameterStrategy.PRECISION,
    },
    "multi-norm2": {
        "parameter_selection_strategy": fhe.ParameterSelectionStrategy.MULTI,
        "multi_parameter_strategy": fhe.MultiParameterStrategy.PRECISION_AND_NORM2,
    },
}


@dataclass(frozen=True)
class Compiled:
    """What Concrete made, and with which strategy.

    Attributes:
        circuit: The ``fhe.Circuit``.
        emitter: Its scope holds the traced nodes.
        strategy: The parameter strategy that was taken.
    """

    circuit: Any
    emitter: Emitter
    strategy: str


def configuration(options: LowerOptions, strategy: str) -> fhe.Configuration:
    """Concrete's configuration.

    Raises:
        UserError: A security level that Concrete does not have.
    """
    levels = {
        128: SecurityLevel.SECURITY_128_BITS,
        132: SecurityLevel.SECURITY_132_BITS,
    }
    if options.security_level not in levels:
        raise UserError(
            "Concrete does not have this security level",
            found=f"{options.security_level} bits",
            allowed=" or ".join(map(str, levels)),
        )
    return fhe.Configuration(
        p_error=options.p_error,
        global_p_error=options.global_p_error,
        compress_evaluation_keys=options.compress_keys,
        compress_input_ciphertexts=options.compress_inputs,
        loop_parallelize=options.loop_parallelize,
        security_level=levels[options.security_level],
        additional_pre_processors=[DeclaredRanges()],
        additional_post_processors=[RoundedOutputs()],
        # It would write the graph, and the paths of this machine, into the working directory.
        dump_artifacts_on_unexpected_failures=False,
        **_STRATEGIES[strategy],
    )


def compile_plan(plan: Plan, options: LowerOptions) -> Compiled:
    """Compile ``plan``.

    Raises:
        LimitError: Concrete finds no parameters, or a value too wide.
        OnnxFheError: Concrete fails in another way.
    """
    strategy = "mono" if aborts_with_several_sets(plan) else options.parameter_strategy
    if strategy != "auto":
        options.progress("compile", 0, 1)
        compiled = _compile(plan, options, strategy)
        options.progress("compile", 1, 1)
        return compiled
    options.progress("compile", 0, 2)
    plain = _compile(plan, options, "multi")
    options.progress("compile", 1, 2)
    finer = _compile(plan, options, "multi-norm2") if len(plan.lookups) > 1 else plain
    options.progress("compile", 2, 2)
    return finer if finer.circuit.complexity < NORM_STRATEGY_SHARE * plain.circuit.complexity else plain


def mlir_of(plan: Plan, options: LowerOptions) -> str:
    """The program that ``plan`` is traced to, without compiling it."""
    emitter = Emitter(plan)
    compiler = fhe.Compiler(emitter.function(), emitter.parameters())
    settings = configuration(options, "mono").fork(fhe_execution=False)
    return str(compiler.compile(_samples(plan.inputs), settings).mlir)


def aborts_with_several_sets(plan: Plan) -> bool:
    """Whether Concrete's choice of several parameter sets would end the process.

    In 2.11 its optimizer panics ("new_instr_part.alternative_output_representation.is_empty()", analyze.rs)
    on exact rounding in a network that branches or adds two encrypted tensors.
    """
    if not any(x.is_rounded_exactly for x in plan.lookups.values()):
        return False
    return any(
        sum(v in plan.shapes for v in n.inputs) > 1 or any(len(list(o.uses())) > 1 for o in n.outputs)
        for n in plan.server.graph
    )


def _compile(plan: Plan, options: LowerOptions, strategy: str) -> Compiled:
    emitter = Emitter(plan)
    compiler = fhe.Compiler(emitter.function(), emitter.parameters())
    # Parallel loops change no parameter, and take a third of the time to compile.
    settings = configuration(replace(options, loop_parallelize=False), strategy)
    try:
        # What runs is made of the program's text, by a session or a simulator.
        with unlinked():
            circuit = compiler.compile(_samples(plan.inputs), settings)
            removed_with(circuit.server, circuit.server._library)
    except RuntimeError as error:
        raise refused(plan, str(error), options.p_error) from error
    return Compiled(circuit, emitter, strategy)


def _samples(ports: tuple[Port, ...]) -> list[Any]:
    """Two samples, only to trace with: the ranges are declared."""
    lows = tuple(np.full(p.shape, p.low, np.int64) for p in ports)
    highs = tuple(np.full(p.shape, p.high, np.int64) for p in ports)
    return [lows, highs] if len(ports) > 1 else [lows[0], highs[0]]
