"""The walk of ``lower-to-integer``: one rule for each kind of operator of the encrypted part."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...analysis.ranges.ranges import SoundRanges
from ...analysis.ranges.scaling import carried
from ...analysis.regions.elementwise import ElementwiseProbe
from ...analysis.regions.linear import Linear, linear_of
from ...analysis.regions.regions import JOINS, POOLS, PRODUCTS
from ...ir.errors import UnsupportedError
from ...ir.graph import LAYOUT, MAXIMA, constant_of, variable_inputs
from ...ir.integer_editing import IntegerEditor
from ...ir.movement import Movements, may_move
from ...ir.ops import Decrypt, DequantizeLinear, Encrypt
from ..framework.base import Context
from . import combining, pooling
from .codes import bias_of, weight_of
from .common_scale import CommonScales
from .uniform import Uniform
from .views import View, rank_of, through


class Lowering:
    """State of the walk.

    Args:
        model: A qdq model; edited in place.
        server: Its nodes that run encrypted.
        context: For notes.
    """

    def __init__(self, model: ir.Model, server: set[ir.Node], context: Context) -> None:
        self.model = model
        self.server = server
        self.context = context
        self.edit = IntegerEditor(model)
        self.common_scales = CommonScales(self.edit)
        self.sound = SoundRanges(model)
        self.uniform = Uniform(self.edit, self.common_scales, context)
        self.opset = model.graph.opset_imports.get("", 21)
        self.movements = Movements(self.opset)
        self.elementwise = ElementwiseProbe(self.opset)
        self.views: dict[ir.Value, View] = {}
        self._floats: dict[tuple[ir.Value, bool], ir.Value] = {}
        self._clones: dict[ir.Value, ir.Value] = {}
        self._decrypted: dict[ir.Value, ir.Value] = {}
        self._encrypted: dict[ir.Value, ir.Value] = {}

    def visit(self, node: ir.Node) -> None:
        """Lower one node; nodes come in topological order."""
        self.edit.at(node)
        if node.op_type == "DequantizeLinear" and constant_of(node.inputs[0]) is None:
            self._dequantize(node)
            return
        if node not in self.server:
            for index, value in enumerate(node.inputs):
                if value is not None and self._is_server(value):
                    node.replace_input_with(index, self._on_client(value))
            return
        self._on_server(node)

    def _on_server(self, node: ir.Node) -> None:
        """Lower a node of the encrypted part, by the first rule that it fits; without one it stays float."""
        linear = linear_of(node)
        viewed = [v for v in node.inputs if v in self.views]
        all_viewed = len(viewed) == len([v for v in node.inputs if v is not None and constant_of(v) is None])
        if linear is not None:
            self._linear(linear)
        elif viewed and may_move(node) and (movement := self.movements(node)) is not None:
            views = {v: self.data_view(node, v) for v in movement.sources}
            self.views[node.outputs[0]] = combining.move(node, movement, views, self.edit)
        elif node.op_type in LAYOUT and viewed:
            self._layout(node)
        elif node.op_type in POOLS and viewed:
            data = node.inputs[0]
            assert data is not None
            self.views[node.outputs[0]] = pooling.lower(node, self._poolable(node, data), self.edit)
        elif node.op_type in MAXIMA and all_viewed and combining.chooses(node, self.elementwise):
            self._choose(node)
        elif node.op_type in PRODUCTS and all_viewed and combining.multiplies(node):
            self._multiply(node)
        elif node.op_type in JOINS and len(set(viewed)) == 2:
            self._join(node)
        elif (shifted := combining.shift(node, self.views)) is not None:
            self.views[node.outputs[0]] = shifted
        else:
            for index, value in enumerate(node.inputs):
                if value in self.views:
                    node.replace_input_with(index, self._float(value, client=False))

    def _is_server(self, value: ir.Value) -> bool:
        # Not the views: a quantized input is also the client's, who can use it as it is.
        producer = value.producer()
        return producer is not None and producer in self.server

    def _dequantize(self, node: ir.Node) -> None:
        """A quantized activation: its integers without zero point, encrypted where the client has them."""
        dequantize = DequantizeLinear.of(node)
        codes, output = dequantize.input, dequantize.output
        scale, zero = dequantize.scale, dequantize.zero_point
        assert scale is not None
        inside = node in self.server or any(n in self.server for n in output.consumers())
        if not inside:
            return
        zero = np.zeros(1) if zero is None else zero
        rank, name = rank_of(output), str(output.name)
        if codes in self._encrypted:
            integers = self._encrypted[codes]
        else:
            integers = self.edit.add("Cast", [codes], f"{name}_integers", {"to": 1}, like=output)
            offset = -dequantize.per_channel(zero.astype(np.float32), rank)
            integers = self.edit.shifted(integers, offset, f"{name}_centred")
            producer = codes.producer()
            low, high = dequantize.integer_range
            if producer is None or producer not in self.server:
                encrypt = Encrypt.make(integers, low=low, high=high)
                integers = self.edit.insert(encrypt, f"{name}_encrypt", output)
            self._encrypted[codes] = integers
            self.common_scales.declare(integers, low, high)
        scale = dequantize.per_channel(scale, rank)
        self.views[output] = View(integers, scale, np.zeros([1] * rank, np.float32))

    def _choose(self, node: ir.Node) -> None:
        """A maximum or minimum of elements of one scale."""
        views = {v: self.data_view(node, v) for v in variable_inputs(node)}
        if len(views) == 1:
            (value,) = views
            views = {value: self._poolable(node, value)}
        self.views[node.outputs[0]] = combining.choose(node, views, self.edit)

    def _multiply(self, node: ir.Node) -> None:
        """A product of two encrypted tensors."""
        views = {v: self.data_view(node, v) for v in variable_inputs(node)}
        if node.op_type == "MatMul":
            views = {v: self.uniform(node, view) for v, view in views.items()}
        self.views[node.outputs[0]] = combining.multiply(node, views, self.edit)

    def data_view(self, node: ir.Node, value: ir.Value) -> View:
        """The view of an input.

        Raises:
            UnsupportedError: It has none, for it is not quantized.
        """
        view = self.views.get(value)
        if view is None:
            raise UnsupportedError(
                f"the tensor {value.name!r} reaches this operator without a quantizer",
                node=node.name or "",
                op=node.op_type,
                found="a float tensor",
                allowed="the output of QuantizeLinear and DequantizeLinear",
                do="quantize the float model with the quantize pass, or add the missing quantizer",
            )
        return view

    def _poolable(self, node: ir.Node, data: ir.Value) -> View:
        """The view of what is pooled, with one scale where the pooling would mix several."""
        view = self.data_view(node, data)
        mixed = carried([node], data, np.abs(view.scale)) is None
        return self.uniform(node, view) if mixed else view

    def _linear(self, linear: Linear) -> None:
        node = linear.node
        data, output = node.inputs[0], node.outputs[0]
        assert data is not None
        view = self.uniform(node, self.data_view(node, data))
        if np.any(view.offset):
            raise UnsupportedError(
                "the input of this linear operator has an offset",
                node=node.name or "",
                op=node.op_type,
                found=f"a constant of {np.abs(view.offset).max():g} added to integers",
                allowed="the output of QuantizeLinear and DequantizeLinear",
                do="quantize the float model with the quantize pass, which moves offsets into the bias",
            )
        codes, scale = weight_of(linear)
        if not any(n in self.server for n in output.consumers()):
            # The client gets the bias of a channel without weights, whatever rounding and noise do to zeros.
            alive = np.any(np.moveaxis(codes, linear.out_axis, 0).reshape(linear.channels, -1), axis=1)
            scale = np.where(alive, scale, 0.0) if not alive.all() else scale
        rank = rank_of(output)
        weight = self.edit.constant(f"{node.name}_integers", codes)
        kept = [a for a in node.attributes.values() if a.name not in {"alpha", "beta"}]
        name = self.edit.take_name(node)
        integers = self.edit.add(node.op_type, [view.integers, weight], name, kept, like=output)
        bias = bias_of(node)
        offset = linear.along_channels(bias if bias is not None else np.zeros(1, np.float32), rank)
        factor = linear.along_channels(scale, rank) if scale.size > 1 else scale.reshape([1] * rank)
        self.views[output] = View(integers, factor * view.scale.reshape(-1)[0], offset)

    def _layout(self, node: ir.Node) -> None:
        data, output = node.inputs[0], node.outputs[0]
        assert data is not None
        view = self.data_view(node, data)
        inputs, attributes = [view.integers, *node.inputs[1:]], list(node.attributes.values())
        integers = self.edit.add(node.op_type, inputs, self.edit.take_name(node), attributes, like=output)
        scale, offset = (through(node, a, data, self.opset) for a in (view.scale, view.offset))
        self.views[output] = View(integers, scale, offset)

    def _join(self, node: ir.Node) -> None:
        first, second = node.inputs
        assert first is not None
        assert second is not None
        output = node.outputs[0]
        a, b, common = self.common_scales.of(self.data_view(node, first), self.data_view(node, second))
        if common.error:
            self.context.notes.append(
                f"{node.name} ({node.op_type}) adds tensors whose scales have no small common multiple;"
                f" multipliers are within {common.error:.2%}"
            )
        left = self.edit.scaled(a.integers, common.a, f"{node.name}_left")
        right = self.edit.scaled(b.integers, common.b, f"{node.name}_right")
        integers = self.edit.add(node.op_type, [left, right], self.edit.take_name(node), like=output)
        offset = a.offset - b.offset if node.op_type == "Sub" else a.offset + b.offset
        self.views[output] = View(integers, common.scale, offset)

    def _float(self, value: ir.Value, client: bool) -> ir.Value:
        """The float tensor that a view stands for, on the server's or the client's side."""
        if (value, client) not in self._floats:
            view, name = self.views[value], f"{value.name}_{'client' if client else 'server'}"
            source = self._decrypt(view.integers) if client else view.integers
            factor = self.edit.constant(f"{name}_scale", view.scale)
            scaled = self.edit.add("Mul", [source, factor], f"{name}_scaled", like=value)
            self._floats[value, client] = self.edit.shifted(scaled, view.offset, f"{name}_shifted")
        return self._floats[value, client]

    def _decrypt(self, integers: ir.Value) -> ir.Value:
        if integers not in self._decrypted:
            low, high = self.sound.of(integers)
            decrypt = Decrypt.make(integers, low=float(low.min()), high=float(high.max()))
            self._decrypted[integers] = self.edit.insert(decrypt, f"{integers.name}_decrypt", integers)
        return self._decrypted[integers]

    def _on_client(self, value: ir.Value) -> ir.Value:
        """A value of the encrypted part on the client: decrypted, or computed from decrypted values."""
        if value in self.views:
            return self._float(value, client=True)
        if value in self._clones:
            return self._clones[value]
        # What stands for a view on the server's side stands for it on the client's side too.
        ends = {*self.views, *self._clones, *(f for (_, client), f in self._floats.items() if not client)}
        pending, between = [value], set()
        while pending:
            current = pending.pop()
            producer = current.producer()
            if current in ends or producer is None or producer in between or producer not in self.server:
                continue
            between.add(producer)
            pending.extend(v for v in producer.inputs if v is not None)
        for producer in [n for n in self.model.graph if n in between]:
            self._clone(producer)
        return self._clones[value]

    def _clone(self, node: ir.Node) -> None:
        inputs = []
        reverse = {f: v for (v, client), f in self._floats.items() if not client}
        for value in node.inputs:
            if value is None or constant_of(value) is not None:
                inputs.append(value)
            elif value in reverse:
                inputs.append(self._float(reverse[value], client=True))
            else:
                inputs.append(
                    self._clones.get(value) or (self._on_client(value) if self._is_server(value) else value)
                )
        output, kept, name = node.outputs[0], list(node.attributes.values()), f"{node.name}_client"
        copy = self.edit.add(node.op_type, inputs, name, kept, like=output, domain=node.domain)
        copy.type = output.type
        self._clones[output] = copy

    def finish(self) -> None:
        """Graph outputs that the encrypted part produces go through the client."""
        self.edit.at(None)
        for index, output in enumerate(self.model.graph.outputs):
            if not self._is_server(output):
                continue
            replaced, name = self._on_client(output), output.name
            output.name = f"{name}_encrypted_side"
            replaced.name = name
            self.model.graph.outputs[index] = replaced
