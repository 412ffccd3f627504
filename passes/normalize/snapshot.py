"""What a graph looks like at a moment, to tell later whether it has changed."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Structure, names, types, shapes and constants of a model; constants are held, not copied.

    Attributes:
        structure: All but the content of constants.
        constants: Initializers by name. Tensors are never edited in place, only replaced.
    """

    structure: list[object]
    constants: dict[str, ir.TensorProtocol]

    @classmethod
    def of(cls, model: ir.Model) -> Snapshot:
        """The model as it is now."""
        graph = model.graph
        structure: list[object] = [
            model.ir_version,
            graph.name,
            sorted(model.opset_imports.items()),
            sorted(model.metadata_props.items()),
            sorted(graph.metadata_props.items()),
            [_value(v) for v in (*graph.inputs, *graph.outputs)],
        ]
        for node in RecursiveGraphIterator(graph):
            structure.append(
                (
                    node.domain,
                    node.op_type,
                    node.overload,
                    node.name,
                    [None if v is None else v.name for v in node.inputs],
                    [_value(v) for v in node.outputs],
                    [(a.name, a.type, _attribute(a)) for a in node.attributes.values()],
                    sorted(node.metadata_props.items()) if node.metadata_props else (),
                )
            )
        held = {str(v.name): v.const_value for v in graph.initializers.values() if v.const_value is not None}
        return cls(structure, held)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        return (
            self.structure == other.structure
            and list(self.constants) == list(other.constants)
            and all(_same(a, other.constants[name]) for name, a in self.constants.items())
        )

    __hash__ = None  # type: ignore[assignment]


def _value(value: ir.Value) -> object:
    shape = None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape.dims]
    return value.name, value.dtype, shape


def _attribute(attribute: ir.Attr) -> object:
    # Numbers and words print as they are; graphs are walked by themselves.
    graph = attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return None if graph else str(attribute.value)


def _same(a: ir.TensorProtocol, b: ir.TensorProtocol) -> bool:
    if a is b:
        return True
    if a.dtype != b.dtype or list(a.shape) != list(b.shape):
        return False
    first, second = a.numpy(), b.numpy()
    if first.dtype.kind in "SUO":
        return bool((first == second).all())
    return first.tobytes() == second.tobytes()
