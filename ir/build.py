"""Making nodes and constants of the integer level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from . import dialect
from .editing import initializer


class Builder:
    """Inserts nodes in front of a place in the graph and gives them free names.

    Args:
        model: The model that is edited.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.made: set[ir.Node] = set()
        self._nodes = {n.name for n in model.graph}
        self._values = {v.name for n in model.graph for v in n.outputs} | {v.name for v in model.graph.inputs}
        self._before: ir.Node | None = None

    def at(self, node: ir.Node | None) -> None:
        """New nodes go in front of ``node`` (None: to the end)."""
        self._before = node

    def add(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        like: ir.Value,
        name: str,
        attributes: dict[str, object] | Sequence[ir.Attr] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Insert a node; its output is float32 and shaped like ``like``."""
        if isinstance(attributes, dict):
            attributes = ir.convenience.convert_attributes(attributes)  # type: ignore[arg-type]
        return self.insert(ir.Node(domain, op, inputs, attributes or (), num_outputs=1), like, name)

    def insert(self, node: ir.Node, like: ir.Value, name: str) -> ir.Value:
        """Insert a node that was made without a name; its output is float32 and shaped like ``like``."""
        if node.domain == dialect.DOMAIN:
            self.model.graph.opset_imports[dialect.DOMAIN] = dialect.VERSION
        node.name = self._free(name, self._nodes)
        output = node.outputs[0]
        output.name = self._free(f"{name}_out", self._values)
        output.shape = like.shape
        output.type = ir.TensorType(ir.DataType.FLOAT)
        if self._before is None:
            self.model.graph.append(node)
        else:
            self.model.graph.insert_before(self._before, [node])
        self.made.add(node)
        return output

    def take_name(self, node: ir.Node) -> str:
        """The name of a node that is about to be replaced: from now on its replacement's, which so keeps it.

        Users know their nodes by name, in statistics and in per-layer options.
        """
        name = str(node.name)
        node.name = self._free(f"{name}_replaced", self._nodes)
        self._nodes.discard(name)
        return name

    def dialect(
        self, op: str, inputs: Sequence[ir.Value], like: ir.Value, name: str, **attributes: object
    ) -> ir.Value:
        """Insert an operator of the ``onnx_fhe`` domain."""
        self.model.graph.opset_imports[dialect.DOMAIN] = dialect.VERSION
        return self.add(op, inputs, like, name, attributes, domain=dialect.DOMAIN)

    def constant(self, name: str, array: np.ndarray, dtype: type = np.float32) -> ir.Value:
        """A new initializer."""
        return initializer(self.model, self._free(name, self._values), np.asarray(array, dtype))

    def scaled(self, value: ir.Value, factor: np.ndarray, name: str) -> ir.Value:
        """``value * factor``, or ``value`` itself where the factor is 1 everywhere."""
        if np.all(factor == 1):
            return value
        return self._combined("Mul", value, factor, name, "factor")

    def shifted(self, value: ir.Value, offset: np.ndarray, name: str) -> ir.Value:
        """``value + offset``, or ``value`` itself where the offset is 0 everywhere."""
        if not np.any(offset):
            return value
        return self._combined("Add", value, offset, name, "offset")

    def _combined(self, op: str, value: ir.Value, array: np.ndarray, name: str, what: str) -> ir.Value:
        """``value`` and a constant, whose axes may be longer: a factor for each channel that it will meet."""
        result = self.add(op, [value, self.constant(f"{name}_{what}", array)], value, name)
        if value.shape is not None and array.ndim <= len(value.shape):
            sizes = (*[1] * (len(value.shape) - array.ndim), *array.shape)
            result.shape = ir.Shape(
                [n if n > 1 and d == 1 else d for d, n in zip(value.shape, sizes, strict=True)]
            )
        return result

    @staticmethod
    def _free(name: str, taken: set[str | None]) -> str:
        unique, count = name, 1
        while unique in taken:
            unique, count = f"{name}_{count}", count + 1
        taken.add(unique)
        return unique
