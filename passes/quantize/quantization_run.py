"""One run of ``quantize``: the float values to imitate, and the walk through the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import networkx as nx
import numpy as np
import onnx_ir as ir

from ...analysis.environment import Environment
from ...analysis.ranges.tails import MIN_SAMPLES, distinct
from ...analysis.regions.linear import Linear, linear_of
from ...analysis.regions.regions import Kind, Regions
from ...ir.editing import GraphEditor
from ...ir.graph import constant_of, variable_inputs
from ...ir.movement import FILLS, may_move
from ..framework.base import Context
from . import offsets, scales, weights
from .activations import Quantizer, fit_quantizer, to_powers_of_two, with_offsets
from .bits import common_bits, is_fresh
from .client import ClientInputs
from .graph import insert_quantizer, quantize_weight, set_bias
from .magnitudes import Magnitudes
from .observe import finite, observe
from .rounder import rounded
from .settings import QuantizationSettings
from .solvers import adapt
from .survivors import survivors
from .units import Units


@dataclass
class QuantizationRun:
    """One run of the pass: the float values to imitate, and the walk."""

    options: QuantizationSettings
    model: ir.Model
    regions: Regions
    data: Mapping[str, np.ndarray]
    context: Context
    float_values: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    quantizers: dict[ir.Value, Quantizer] = field(default_factory=dict)
    beside: set[ir.Value] = field(default_factory=set)
    added: dict[ir.Node, np.ndarray] = field(default_factory=dict)
    """What offsets of what a layer reads add to its bias."""
    edit: GraphEditor = field(init=False)
    _many: bool = False
    """Whether there are samples enough to tell what never varies."""

    def __post_init__(self) -> None:
        self.edit = GraphEditor(self.model)

    def run(self) -> None:
        """Quantize the model in place."""
        server = set(self.regions.server)
        self._float_run()
        self._many = len(distinct(self.data)) >= MIN_SAMPLES
        self._choose_scales()
        env, units = Environment(self.model, self.data), self._units()
        nodes = list(self.model.graph)
        for value in self.model.graph.inputs:
            if value in self.quantizers:
                self._insert(value, env, units)
        for index, node in enumerate(nodes):
            linear = linear_of(node) if node in server else None
            results = list(node.outputs)
            if linear is not None:
                results = [self._linear(linear, env, units)]
            else:
                if node in server:
                    self._snap(node, units)
                env.step([node])
            units.visit(node, linear)
            for output in results:
                if output in self.quantizers:
                    self._insert(output, env, units)
            env.done(node)
            self.context.progress("quantize", index + 1, len(nodes))

    def _choose_scales(self) -> None:
        """Fit all quantizers; what the float model has at layers is all that is needed afterwards."""
        groups = self._groups()
        for index, group in enumerate(groups):
            self._fit(group)
            self.context.progress("choose activation scales", index + 1, len(groups))
        for value in self.regions.inputs:
            ClientInputs(self.options, self.regions, self.float_values, self.context.notes).tell(
                value, self.quantizers[value]
            )
        layers = {n.outputs[0] for n in self.regions.server if linear_of(n)}
        self.float_values = {v: a for v, a in self.float_values.items() if v in layers}

    def _units(self) -> Units:
        """What one step of each quantized tensor is worth, before any layer is quantized."""
        units = Units()
        for value, quantizer in self.quantizers.items():
            tensor = self.regions.tensors.get(value)
            if not quantizer.absorbed and (tensor is None or tensor.kind is not Kind.ACCUMULATOR):
                units.set(value, quantizer.scale)
        return units

    def _groups(self) -> list[list[ir.Value]]:
        """Tensors to quantize; those that must have one scale together."""
        pending = [*self.regions.inputs, *self.regions.quantized]
        order = {v: i for i, v in enumerate(pending)}
        joined = nx.utils.UnionFind(pending)
        for group in self.regions.shared_scale:
            joined.union(*group)
        added = {v for group in self.regions.shared_scale for v in group}
        for group in self.regions.concatenated:
            if all(v not in added and self._absorbs(v) for v in group):
                self.beside |= group
            else:
                joined.union(*group)
        groups = [sorted(g, key=order.__getitem__) for g in joined.to_sets()]
        return sorted(groups, key=lambda g: order[g[0]])

    def _float_run(self) -> None:
        """Values of the float model at every linear output and every place for a quantizer."""
        wanted = [n.outputs[0] for n in self.regions.server if linear_of(n)]
        wanted += [*self.regions.inputs, *self.regions.quantized]
        wanted += [s for v in self.regions.operands for s in survivors(v, self.regions)]
        inner = [v for v in dict.fromkeys(wanted) if not v.is_graph_input()]
        self.float_values = observe(
            self.model, inner, self.data, lambda d, t: self.context.progress("run the float model", d, t)
        )
        self.float_values |= {v: np.asarray(self.data[v.name or ""]) for v in wanted if v.is_graph_input()}
        for value, array in self.float_values.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                self.float_values[value] = finite(self.model, self.data, value, array, self.context.notes)

    def _snap(self, node: ir.Node, units: Units) -> None:
        """Bring constants that a node puts between encrypted elements onto their grid."""
        if node.op_type not in FILLS or not may_move(node):
            return
        unit = units.of(variable_inputs(node)[0])
        for index, value in enumerate(node.inputs):
            constant = constant_of(value)
            if constant is not None and constant.dtype == np.float32 and np.any(constant):
                snapped = (np.rint(constant.astype(np.float64) / unit) * unit).astype(np.float32)
                node.replace_input_with(index, self.edit.constant(f"{node.name}_filled", snapped))

    def _fit(self, group: list[ir.Value]) -> None:
        """Choose the quantizer of a tensor, or the common one of tensors that are added."""
        if len(group) == 1 and self._is_plain_input(group[0]):
            client = ClientInputs(self.options, self.regions, self.float_values, self.context.notes)
            self.quantizers[group[0]] = client.fit(group[0], beside=group[0] in self.beside)
            return
        absorbed = len(group) == 1 and self._absorbs(group[0])
        seen = dict.fromkeys(s for v in group for s in survivors(v, self.regions, absorbed))
        arrays = [self.float_values[v] for v in seen]
        if absorbed:
            columns = np.concatenate([np.moveaxis(a, 1, -1).reshape(-1, a.shape[1]) for a in arrays])
        else:
            columns = np.concatenate([a.reshape(-1) for a in arrays])[:, None]
        bits = common_bits(self.options, self.regions, group)
        shifts = any(v in self.regions.operands for v in group)
        # Sound ranges hold all that integers can be: a larger scale would leave more of them empty.
        unseen, method = self.context.ranges.mode == "observed", self.options.calibration
        quantizer = fit_quantizer(columns, bits, method, self.options.percentile, absorbed, shifts, unseen)
        if absorbed and (len(quantizer.scale) > 1 or group[0] in self.beside):
            quantizer = replace(quantizer, absorbed=True)
            if self._takes_offsets(group[0]):
                quantizer = with_offsets(quantizer, columns, method)
        if self.options.scales == "power-of-two":
            quantizer = to_powers_of_two(quantizer, columns, self.options.calibration == "mse")
        self.quantizers |= dict.fromkeys(group, quantizer)

    def _is_plain_input(self, value: ir.Value) -> bool:
        """Whether the client encrypts a tensor, and no operator on several encrypted elements reads it."""
        return value not in self.regions.tensors and value not in self.regions.operands

    def _takes_offsets(self, value: ir.Value) -> bool:
        """Whether offsets of a tensor of the encrypted part vanish in the biases of all that reads it."""
        if value in self.regions.operands:
            return False
        direct = self.regions.tensors[value].kind is Kind.ACCUMULATOR
        found = scales.absorbers(value, self.regions, direct) or []
        layers = [(linear_of(reader), path) for reader, path in found]
        shape = scales.channels_of(value)
        return all(x is not None and offsets.vanishes(x, path, value, shape) for x, path in layers)

    def _absorbs(self, value: ir.Value) -> bool:
        """Whether the scale of ``value`` may go into the weights that follow."""
        if self._is_plain_input(value):
            return scales.features_of(value, self.regions) is not None
        if value not in self.regions.tensors:
            return False
        return self.options.per_neuron and self._absorbers(value) is not None

    def _absorbers(self, value: ir.Value) -> object:
        """Layers whose weights take a scale for each channel of ``value``, or None."""
        direct = self.regions.tensors[value].kind is Kind.ACCUMULATOR
        if direct and any(n in self.regions.settling for n in value.consumers()):
            return None
        return scales.absorbers(value, self.regions, direct)

    def _insert(self, value: ir.Value, env: Environment, units: Units) -> None:
        """Put the quantizer behind ``value`` and let later layers see what it does."""
        quantizer = self.quantizers[value]
        server = set(self.regions.server)
        readers = [n for n in value.consumers() if n in server]
        tensor = self.regions.tensors.get(value)
        if tensor is not None and tensor.kind is Kind.ACCUMULATOR:
            readers = [n for n in readers if linear_of(n) or n in self.regions.settling]
        if value in self.regions.results:
            readers = list(value.consumers())
        if quantizer.absorbed:
            direct = tensor is not None and tensor.kind is Kind.ACCUMULATOR
            self._add_offsets(value, quantizer, direct)
            scales.absorb(self.edit, value, self.regions, quantizer.scale, direct, quantizer.shape)
        nodes = insert_quantizer(self.edit, value, quantizer, readers)
        if value in self.regions.results and value.is_graph_output():
            self._leave(value, nodes[-1].outputs[0])
        env.step(nodes)
        env.moved(value, nodes[-1].outputs[0], len(readers))
        units.set(nodes[-1].outputs[0], 1.0 if quantizer.absorbed else float(quantizer.scale[0]))
        low, high = -quantizer.zero_point, quantizer.top - quantizer.zero_point
        units.bound(nodes[-1].outputs[0], min(0, low), max(0, high))  # where a convolution pads, there is 0

    def _add_offsets(self, value: ir.Value, quantizer: Quantizer, direct: bool) -> None:
        """Remember what the offsets of a tensor come to in the layers that read it."""
        if quantizer.offset is None:
            return
        offset = quantizer.along(quantizer.offset, len(value.shape or []))
        found = scales.absorbers(value, self.regions, direct, quantizer.shape) or []
        for reader, path in found:
            linear = linear_of(reader)
            assert linear is not None
            bias = offsets.bias_of(linear, path, value, offset)
            self.added[reader] = self.added.get(reader, 0.0) + bias

    def _leave(self, value: ir.Value, quantized: ir.Value) -> None:
        """Make the quantized form of an output the output of the model."""
        name, value.name = value.name, f"{value.name}_function"
        quantized.name = name
        outputs = self.model.graph.outputs
        for index, output in enumerate(outputs):
            if output is value:
                outputs[index] = quantized

    def _linear(self, linear: Linear, env: Environment, units: Units) -> ir.Value:
        """Quantize the weights of one layer and refit its gain and offset; returns what the layer gives."""
        options, node = self.options, linear.node
        linear = linear_of(node) or linear  # scales may have been absorbed since
        wanted = self.float_values.pop(node.outputs[0])
        data = env[node.inputs[0]][: len(wanted)]  # type: ignore[index]
        rows, (targets,) = linear.rows(data, wanted, seed=self.context.seed)
        sizes = Magnitudes.of(rows, targets)
        rows, targets = sizes.applied(rows, targets)
        # The offset is fitted afterwards, so only what varies counts.
        moments = [weights.moment(r - r.mean(axis=0) if options.refit else r) for r in rows]
        matrix = linear.matrix() * sizes.weights
        if options.adapt and options.refit:
            wide = matrix.shape[1] > weights.WIDE_INPUTS
            matrix = adapt(matrix, rows, targets, options.adapt, moments if wide else None)
        constant = weights.constants(matrix, rows, targets)
        if self._many:
            matrix = np.where(constant[:, None], 0.0, matrix)
        reference = units.reference(linear)
        reference = None if reference is None else reference * sizes.weights
        free = reference is None and options.scales != "power-of-two"
        fresh = is_fresh(node.inputs[0], self.regions)
        quantized = rounded(options, node, matrix, moments, units, reference, fresh=fresh)
        size = linear.channels // linear.groups
        accumulators = np.concatenate(
            [weights.products(r, quantized.integers[g * size : (g + 1) * size]) for g, r in enumerate(rows)],
            axis=1,
        )
        scale, offset = quantized.scale, None
        step = units.of(node.inputs[0]) / sizes.inputs
        if options.refit:
            scale, offset = weights.refit(accumulators, targets, quantized.scale, gain=free, step=step)
            offset = offset * sizes.outputs
        elif node in self.added or constant.any():
            old = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
            given = self.added.get(node, 0.0) + (
                np.zeros(linear.channels) if old is None else old.reshape(-1)
            )
            exact = weights.refit(accumulators, targets, scale, gain=False)[1] * sizes.outputs
            offset = np.where(constant, exact, given)
        scale = sizes.back(scale)
        added = quantize_weight(self.edit, linear, quantized.integers, scale)
        biased = set_bias(self.edit, linear, offset) if offset is not None else []
        result = biased[0].outputs[0] if biased else node.outputs[0]
        if biased:
            self._follow(node.outputs[0], result)
        for value in dict.fromkeys((node.outputs[0], result)):
            units.set(value, scale * units.of(node.inputs[0]), linear.channel_axis)
        env.step([*added, node, *biased])
        return result

    def _follow(self, product: ir.Value, result: ir.Value) -> None:
        """Quantize behind the bias of a product what was to be quantized before it: both are one layer."""
        if product in self.quantizers:
            self.quantizers[result] = self.quantizers.pop(product)
        if product in self.regions.tensors:
            self.regions.tensors[result] = self.regions.tensors.pop(product)
