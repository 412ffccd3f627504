"""What all views share: finding the nodes, their attributes with the schemas' defaults, and new nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, TypeVar

import onnx
import onnx_ir as ir

from ..dialect import DOMAIN

V = TypeVar("V", bound="View")


@cache
def default_of(op_type: str, name: str, domain: str = DOMAIN) -> int | float | str:
    """The default of an attribute of an operator (of the dialect, by default), from its schema."""
    declared = onnx.defs.get_schema(op_type, domain=domain).attributes[name].default_value
    value = onnx.helper.get_attribute_value(declared)
    return value.decode() if isinstance(value, bytes) else value


@dataclass(frozen=True)
class View:
    """A node of one operator, read by name.

    Attributes:
        node: The node.
    """

    node: ir.Node

    op_type: ClassVar[str]
    domain: ClassVar[str] = DOMAIN

    @classmethod
    def match(cls: type[V], node: ir.Node | None) -> V | None:
        """The view of ``node``; None where that is another operator, or nothing."""
        found = node is not None and node.domain == cls.domain and node.op_type == cls.op_type
        return cls(node) if node is not None and found else None

    @classmethod
    def of(cls: type[V], node: ir.Node) -> V:
        """The view of a node that is known to be such an operator.

        Raises:
            TypeError: It is another one.
        """
        found = cls.match(node)
        if found is None:
            raise TypeError(f"{node.op_type} {node.name!r} is no {cls.op_type}")
        return found

    @classmethod
    def producing(cls: type[V], value: ir.Value | None) -> V | None:
        """The view of the node that computes ``value``; None where another operator does."""
        return cls.match(value.producer()) if value is not None else None

    @classmethod
    def all_in(cls: type[V], model: ir.Model) -> list[V]:
        """The views of all such nodes of a model's graph, in order."""
        return [found for node in model.graph if (found := cls.match(node)) is not None]

    @property
    def name(self) -> str:
        """Name of the node."""
        return str(self.node.name or "")

    @property
    def output(self) -> ir.Value:
        """What the node computes."""
        return self.node.outputs[0]

    @property
    def input(self) -> ir.Value:
        """What the node reads first: the encrypted tensor (before Encrypt, the one to encrypt)."""
        value = self.node.inputs[0]
        assert value is not None, self.name
        return value

    def _int(self, name: str) -> int:
        return self.node.attributes.get_int(name, int(default_of(self.op_type, name, self.domain)))

    @classmethod
    def _node(
        cls, inputs: Sequence[ir.Value | None], attributes: dict[str, int | float | str], name: str | None
    ) -> ir.Node:
        written = ir.convenience.convert_attributes(dict(attributes))
        return ir.Node(cls.domain, cls.op_type, inputs, written, num_outputs=1, name=name)
