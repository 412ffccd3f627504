"""The Concrete backend: legalize the server part, check it, emit it, compile it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import onnx_ir as ir

from ...analysis.expansion.expand import expanded
from ...ir.limits import TargetLimits
from ...ir.p_error import tolerated
from ...ir.partition import partition
from ..base import DEFAULTS, Backend, LowerOptions
from ..concrete_runtime.client import ConcreteClient
from ..concrete_runtime.library import specs_of
from ..concrete_runtime.server import ConcreteServer
from ..concrete_runtime.store import Ports, Program, Stored, read
from ..sides import Sides
from ..statistics import ParameterStrategy
from .circuit import ConcreteCircuit
from .compiling import Compiled, compile_plan, mlir_of
from .maker import fingerprint, is_circuit_of
from .measure import statistics
from .options import options_of, settings_of
from .plan import Plan, make_plan
from .requirements import check


class ConcreteBackend(Backend):
    """TFHE circuits through concrete-python."""

    name = "concrete"

    def limits(self) -> TargetLimits:
        """What concrete-python takes."""
        return TargetLimits(name=self.name)

    def lower(self, model: ir.Model, options: LowerOptions = DEFAULTS) -> ConcreteCircuit:
        """Compile the server part of ``model``; see ``Backend.lower``."""
        p_error, global_p_error = tolerated(model, options.p_error, options.global_p_error)
        options = replace(options, p_error=p_error, global_p_error=global_p_error)
        return self._circuit(model, options, 1)

    def load(self, folder: Path, model: ir.Model | None = None) -> ConcreteCircuit:
        """Read a circuit; see ``Backend.load``. Without ``model`` no ``clear``, no batches, and no check."""
        stored = read(folder)
        if model is None:
            return ConcreteCircuit(stored, None)
        options, samples = options_of(stored.program.settings), stored.ports.inputs[0].shape[0]
        return ConcreteCircuit(
            stored,
            lambda: compile_plan(self._plan(model, samples), options),
            batched=partial(self._circuit, model, options),
            checked=lambda: self._checked(stored, model, options),
        )

    def sides(self) -> Sides:
        """Client and server of its circuits, each alone."""
        return Sides(ConcreteClient.read, ConcreteServer.read)

    def _checked(self, stored: Stored, model: ir.Model, options: LowerOptions) -> Stored:
        """``stored``, where it is the circuit of ``model``; an older one is made anew.

        Raises:
            ArtifactError: It is the circuit of another model.
        """
        plan = self._plan(model, stored.ports.inputs[0].shape[0])
        text = mlir_of(plan, options)
        if is_circuit_of(stored.mlir, stored.ports, stored.program.maker, plan.inputs, plan.outputs, text):
            return stored
        return self._stored(plan, compile_plan(plan, options), options)

    def _circuit(self, model: ir.Model, options: LowerOptions, batch: int) -> ConcreteCircuit:
        plan = self._plan(model, batch)
        compiled = compile_plan(plan, options)
        stored = self._stored(plan, compiled, options)
        batched = partial(self._circuit, model, options_of(stored.program.settings))
        return ConcreteCircuit(stored, lambda: compiled, options.progress, batched)

    def _stored(self, plan: Plan, compiled: Compiled, options: LowerOptions) -> Stored:
        settings = settings_of(options, cast("ParameterStrategy", compiled.strategy))
        return Stored(
            Program(settings, statistics(plan, compiled), fingerprint()),
            compiled.circuit.mlir,
            Ports(plan.inputs, plan.outputs),
            specs_of(compiled.circuit.server.program_info),
        )

    def _plan(self, model: ir.Model, batch: int = 1) -> Plan:
        plan = make_plan(partition(expanded(model)).server, batch)
        check(plan, self.limits())
        return plan
