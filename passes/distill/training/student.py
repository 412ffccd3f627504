"""A qdq model as a torch module: the student."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from ....ir.errors import UnsupportedError
from ....ir.graph import constant_of, variable_inputs
from ....ir.ops import DequantizeLinear
from .entry import client_nodes, entries
from .operators import OPERATORS
from .places import Bits, find_tables
from .quantizers import Factors, FakeActivation, FakeWeight
from .reading import base_of, feeds_join, quantizers, weight_nodes
from .table import Table, free_norm


class Student(nn.Module):
    """The model, differentiable in its weights, biases and scales.

    Args:
        model: A model of the qdq level.
        bits: P, bits that reach the table behind a layer; 0 for no rounding.
        noise: Noise of a bootstrap, in steps of a table.
        cut: Tensors to return; the graph outputs where it is empty.

    Attributes:
        entries: What the encrypted part starts from; the client's part before it is not trained.
        weights, activations: By their DequantizeLinear.
        layers: Names of those behind which tables will stand.
        tables: Those places, where there is rounding.
        capture: Whether ``captured`` is filled: with what tables read, and ``watched`` tensors.
        gates: Factors of what linear operators read, by channel.

    Raises:
        UnsupportedError: An operator cannot be differentiated here.
    """

    def __init__(self, model: ir.Model, bits: Bits, noise: float, cut: list[ir.Value]) -> None:
        super().__init__()
        self.model = model
        self.entries, self._client = entries(model), client_nodes(model)
        self.cut = cut or list(model.graph.outputs)
        self.quantizers = quantizers(model)
        self._skip = {n for q in self.quantizers for n in (q.quantize, q.quantize.outputs[0].consumers()[0])}
        self._at = {q.dequantize: q for q in self.quantizers}
        self.weights: dict[ir.Node, FakeWeight] = {}
        self.activations: dict[ir.Node, FakeActivation] = {}
        self.constants: dict[ir.Value, torch.Tensor] = {}
        self.factors: dict[ir.Value, Factors] = {}
        self.captured: dict[ir.Value, torch.Tensor] = {}
        self.watched: set[ir.Value] = set()
        self.gates: dict[ir.Node, Callable[[], torch.Tensor]] = {}
        self.capture = False
        linear = {dq: node for node, dq in weight_nodes(model)}
        for dq, node in linear.items():
            self._add_weight(node, dq)
        for quantizer in self.quantizers:
            free = not feeds_join(quantizer.dequantize.outputs[0])
            self.activations[quantizer.dequantize] = FakeActivation(
                quantizer.scale, quantizer.zero_point, quantizer.low, quantizer.high, free
            )
        self._add_constants()
        places = find_tables(self, bits, noise)
        self.layers = {t.layer for t in places}
        self.tables = [t for t in places if t.lattice.bits]
        self._rounded = {t.base: t for t in self.tables}
        self._through = {t.base: self.readers(t) for t in self.tables}
        self.register_everything()
        self._check_operators()

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state; lattices are as they were then."""
        for index, table in enumerate(self.tables):
            table.lattice.strength = 1.0
            place = f"parts.{len(self.weights) + len(self.activations) + index}"
            table.lattice.ratio = state[f"{place}.ratio"].clone()
            table.lattice.origin = state[f"{place}.origin"].clone()
        self.load_state_dict(state)

    def register_everything(self) -> None:
        """Let torch know the parts."""
        self.parts = nn.ModuleList(
            [
                *self.weights.values(),
                *self.activations.values(),
                *(t.lattice for t in self.tables),
                *self.factors.values(),
            ]
        )
        self.free = nn.ParameterList(c for c in self.constants.values() if isinstance(c, nn.Parameter))

    def _add_weight(self, node: ir.Node, dq: ir.Node) -> None:
        stored = DequantizeLinear.of(dq)
        codes, scale = constant_of(stored.input), stored.scale
        assert codes is not None
        assert scale is not None
        spread = stored.per_channel(scale, codes.ndim)
        free = not feeds_join(node.outputs[0])
        neurons = 1 if node.op_type == "MatMul" else 0
        self.weights[dq] = FakeWeight(codes.astype(np.float32), spread, free, neurons)

    def _add_constants(self) -> None:
        """Biases, and scales per neuron in front of quantizers, are learned; other constants stay."""
        for node in self.model.graph:
            for index, value in enumerate(node.inputs):
                array = constant_of(value)
                if value is None or array is None or node in self.weights or node in self._client:
                    continue
                if value in self.constants or value in self.factors:
                    continue
                tensor = torch.from_numpy(np.array(array))
                if self._is_unit(node, array):
                    self.factors[value] = Factors(array)
                    continue
                bias = node.op_type in {"Gemm", "Conv"} and index == 2
                bias = bias or (node.op_type == "Add" and self._behind_matmul(node))
                learned = bias and tensor.dtype == torch.float32
                self.constants[value] = nn.Parameter(tensor) if learned else tensor

    @staticmethod
    def _is_unit(node: ir.Node, array: np.ndarray) -> bool:
        """Whether a constant is a scale per neuron in front of a quantizer."""
        read = [r.op_type for r in node.outputs[0].consumers()]
        return (
            node.op_type == "Mul"
            and "QuantizeLinear" in read
            and array.dtype == np.float32
            and bool((array >= 0).all() and array.any())
        )

    @staticmethod
    def _behind_matmul(node: ir.Node) -> bool:
        producers = [v.producer() for v in variable_inputs(node)]
        return any(p is not None and p.op_type == "MatMul" for p in producers)

    def encrypted(self, value: ir.Value) -> bool:
        """Whether a value comes from behind a quantizer: before it, the client computes."""
        pending, seen = [value], set()
        while pending:
            producer = pending.pop().producer()
            if producer is None or producer in seen:
                continue
            if producer in self._at:
                return True
            seen.add(producer)
            pending.extend(variable_inputs(producer))
        return False

    def behind_table(self, value: ir.Value) -> bool:
        """Whether a quantizer of the encrypted part comes before a value."""
        inner = {n for n, q in self._at.items() if self.encrypted(q.source)}
        pending, seen = [value], set()
        while pending:
            producer = pending.pop().producer()
            if producer is None or producer in seen:
                continue
            if producer in inner:
                return True
            seen.add(producer)
            pending.extend(variable_inputs(producer))
        return False

    def readers(self, table: Table) -> set[ir.Node]:
        """The element-wise operators that lie between the base and a quantizer."""
        return {
            n
            for n in table.base.consumers()
            if n.op_type == "QuantizeLinear" or all(base_of(o) is table.base for o in n.outputs)
        }

    def _check_operators(self) -> None:
        for node in self.model.graph:
            special = node in self._at or node in self._skip or node in self.weights
            special = special or node in self._client
            if not special and (node.domain or node.op_type not in OPERATORS):
                raise UnsupportedError(
                    "distill cannot train through this operator",
                    node=node.name or "",
                    op=node.op_type,
                    found=node.op_type,
                    allowed=", ".join(sorted(OPERATORS)),
                    do="leave distill out of the pipeline, or replace the operator",
                )

    def unit(self, table: Table) -> torch.Tensor:
        """What one integer step of a table's accumulator is worth, broadcastable; without gradient."""
        if table.linear is None or table.weight is None or table.activation is None:
            return torch.ones(())
        scale = table.weight.scale().detach().reshape(-1) * table.activation.log_scale.detach().exp()
        return self._along(table, scale)

    def shift(self, table: Table) -> torch.Tensor:
        """What is added to a table's accumulator, broadcastable; without gradient."""
        node = table.linear.node if table.linear is not None else None
        if node is None or node.op_type == "MatMul" or len(node.inputs) < 3 or node.inputs[2] is None:
            return torch.zeros(())
        return self._along(table, self.constants[node.inputs[2]].detach().reshape(-1))

    @staticmethod
    def _along(table: Table, vector: torch.Tensor) -> torch.Tensor:
        assert table.linear is not None
        rank = len(table.base.shape or [])
        axis = table.linear.channel_axis % rank
        return vector.reshape([-1 if i == axis else 1 for i in range(rank)])

    def norms(self) -> Iterator[tuple[torch.Tensor, float]]:
        """Integer weights behind tables, as (neurons, inputs), and the 2-norm from which on tables cost more.

        What counts is the norm against the bits that are told apart next (``required_precision``).
        """
        if not self.tables:
            return
        most = max(t.lattice.bits for t in self.tables)
        behind = {t.linear.node: t for t in self.tables if t.linear is not None}
        for node, dq in weight_nodes(self.model):
            table = behind.get(node)
            if not self.behind_table(node.outputs[0]):
                continue
            codes = self.weights[dq].codes()
            rows = codes.T if node.op_type == "MatMul" else codes.flatten(1)
            yield rows, free_norm(most if table is None else table.lattice.bits, raw=table is None)

    def forward(self, data: list[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors of ``cut`` for a batch of ``entries``."""
        env: dict[ir.Value, torch.Tensor] = dict(zip(self.entries, data, strict=True))
        rounded: dict[ir.Value, torch.Tensor] = {}
        wanted = set(self.cut)
        for node in self.model.graph:
            if node in self._client:
                continue
            if node in self.weights:
                env[node.outputs[0]] = self.weights[node]()
                continue
            if node in self._at:
                source = self._at[node].source
                value = (
                    rounded[source] if self._reads_rounded(self._at[node].quantize, source) else env[source]
                )
                env[node.outputs[0]] = self.activations[node](value)
            elif node not in self._skip:
                given = [
                    None
                    if v is None
                    else self.constants[v]
                    if v in self.constants
                    else self.factors[v]()
                    if v in self.factors
                    else rounded[v]
                    if self._reads_rounded(node, v)
                    else env[v]
                    for v in node.inputs
                ]
                if node in self.gates and given[0] is not None:
                    given[0] = given[0] * self.gates[node]()
                env[node.outputs[0]] = OPERATORS[node.op_type](node, given)
            output = node.outputs[0]
            if self.capture and output in self.watched:
                self.captured[output] = env[output]
            if output in self._rounded and output in env:
                table = self._rounded[output]
                if self.capture:
                    self.captured[output] = env[output]
                rounded[output] = table.lattice(env[output], self.unit(table), self.shift(table))
            wanted.discard(output)
            if not wanted:
                break
        return [env[v] for v in self.cut]

    def _reads_rounded(self, node: ir.Node, value: ir.Value) -> bool:
        return value in self._through and node in self._through[value]
