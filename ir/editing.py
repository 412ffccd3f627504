"""The one editor of graphs: new nodes and constants at a place, values replaced, nodes removed.

``onnx_ir.tape.Tape`` makes nodes too, but appends them at the end of a graph and numbers their names. Here
nodes go where they are needed, and their names are chosen: users know layers by them, and so do passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from typing_extensions import Self

from .names import fresh

Attributes = Mapping[str, Any] | Sequence[ir.Attr]
"""Attributes of a node: by name, or as another node has them."""


def has_attributes(node: ir.Node, wanted: Mapping[str, int | float | list[int]]) -> bool:
    """Whether ``wanted`` are the attributes of the node, in that order."""
    present = {name: attribute.value for name, attribute in node.attributes.items()}
    found = {name: list(v) if isinstance(v, tuple | list) else v for name, v in present.items()}
    return found == dict(wanted) and list(found) == list(wanted)


def set_attributes(node: ir.Node, wanted: Mapping[str, int | float | list[int]]) -> None:
    """Make ``wanted`` the attributes of the node, in that order."""
    if has_attributes(node, wanted):
        return
    node.attributes.clear()
    for attribute in ir.convenience.convert_attributes(dict(wanted)):
        node.attributes.add(attribute)


class GraphEditor:
    """Edits the graph of a model; what it makes has names that are free, and graph outputs keep theirs.

    The editor looks at all names once, when it first needs one, and remembers them: looking again for each
    edit would take quadratic time. So nobody else should add nodes while an editor is in use; constants may
    come and go.

    Args:
        model: The model; edited in place.
    """

    output_suffix: ClassVar[str] = "output"
    """What a node returns is named after the node and this."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.made: set[ir.Node] = set()
        self._nodes: set[str] | None = None
        self._values: set[str] = set()
        self._before: ir.Node | None = None
        self._behind: ir.Node | None = None

    @property
    def graph(self) -> ir.Graph:
        """The graph of the model as it is now."""
        return self.model.graph

    def at(self, node: ir.Node | None) -> Self:
        """New nodes go in front of ``node`` (None: to the end)."""
        self._before, self._behind = node, None
        return self

    def behind(self, value: ir.Value) -> Self:
        """New nodes go, one behind the other, right behind the node that makes ``value``.

        For an input or a constant that is the beginning of the graph.
        """
        self._before, self._behind = None, value.producer()
        if self._behind is None and len(self.graph):
            self._before = self.graph.node(0)
        return self

    def add(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: Attributes | None = None,
        like: ir.Value | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Insert a node at the place that was chosen.

        Args:
            op: Its operator.
            inputs: What it reads.
            name: Its name; a number follows where that is taken.
            attributes: Its attributes.
            like: Its output has the type and shape of this value; unknown ones where it is None.
            domain: Domain of the operator.

        Returns:
            Its output.
        """
        if isinstance(attributes, Mapping):
            attributes = ir.convenience.convert_attributes(attributes)
        return self.insert(ir.Node(domain, op, inputs, attributes or (), num_outputs=1), name, like)

    def insert(self, node: ir.Node, name: str, like: ir.Value | None = None) -> ir.Value:
        """Insert a node that was made without a name; see ``add``. Returns its first output."""
        if like is not None:
            node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
        node.name = fresh(name, self._taken_nodes())
        for output in node.outputs:
            if output.name != "":
                output.name = self._free_value(f"{name}_{self.output_suffix}")
                self._values.add(output.name)
        if self._behind is not None:
            self.graph.insert_after(self._behind, node)
            self._behind = node
        elif self._before is not None:
            self.graph.insert_before(self._before, node)
        else:
            self.graph.append(node)
        self.made.add(node)
        return node.outputs[0]

    def add_again(self, node: ir.Node, inputs: Sequence[ir.Value | None], name: str) -> list[ir.Value]:
        """Insert the same operator on other inputs; returns its outputs, without shapes."""
        made = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            metadata_props=dict(node.metadata_props),
        )
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.name, new.type = "" if not old.name else None, old.type
        self.insert(made, name)
        return list(made.outputs)

    def constant(self, name: str, array: np.ndarray, dtype: type | None = None) -> ir.Value:
        """A new initializer named ``name``, or ``name_1``, ... where that is taken.

        Args:
            name: Its name.
            array: What it holds.
            dtype: The type that it is stored in; that of the array where it is None.
        """
        name = self._free_value(name)
        # Not ir.tensor: it asks what kind of thing it is given, which takes far longer than the rest.
        tensor = ir.Tensor(np.asarray(array, dtype, order="C"), name=name)
        value = ir.Value(
            name=name, shape=ir.Shape(np.shape(array)), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def set_constant(self, node: ir.Node, index: int, array: np.ndarray, name: str) -> None:
        """Give ``node`` the constant ``array`` as input ``index``.

        An initializer that only this node reads keeps its name and gets the new content.
        """
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        old = node.inputs[index]
        if old is not None and old.is_initializer() and not old.is_graph_output() and len(old.uses()) == 1:
            name = str(old.name)
            node.replace_input_with(index, None)
            del self.graph.initializers[name]
        node.replace_input_with(index, self.constant(name, array))

    def substitute(
        self, old: ir.Node, op: str, inputs: Sequence[ir.Value | None], attributes: Attributes | None = None
    ) -> ir.Node:
        """Replace ``old`` (one output) by another operator of the same node name and output name."""
        if isinstance(attributes, Mapping):
            attributes = ir.convenience.convert_attributes(attributes)
        result = old.outputs[0]
        node = ir.Node(
            "",
            op,
            inputs,
            attributes or (),
            num_outputs=1,
            name=old.name,
            metadata_props=dict(old.metadata_props),
        )
        new = node.outputs[0]
        new.type, new.shape = result.type, result.shape
        self.graph.insert_before(old, node)
        result.replace_all_uses_with(new, replace_graph_outputs=True)
        name = result.name
        self.graph.remove(old, safe=True)
        new.name = name
        return node

    def read_instead(self, old: ir.Value, new: ir.Value) -> None:
        """Let all that reads or returns ``old`` read ``new``, but the node that makes ``new``."""
        maker = new.producer()
        kept = [i for i, v in enumerate(maker.inputs) if v is old] if maker is not None else []
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        for index in kept:
            assert maker is not None
            maker.replace_input_with(index, old)

    def stand_in(self, old: ir.Value, new: ir.Value, renamed: str = "before") -> None:
        """Let ``new`` be read and returned in place of ``old``, by its name.

        Args:
            old: What was read; the node that makes ``new`` may go on reading it.
            new: It has a producer of its own.
            renamed: ``old`` is named after itself and this from now on.
        """
        name = str(old.name)
        self.read_instead(old, new)
        new.type, new.shape = old.type or new.type, old.shape if old.shape is not None else new.shape
        old.name, new.name = f"{name}_{renamed}", name
        self._values.add(old.name)

    def can_bypass(self, node: ir.Node, value: ir.Value) -> bool:
        """Whether ``value`` can stand for the first output of ``node``.

        Where the model returns that output, an input, another output or a constant cannot.
        """
        if not node.outputs[0].is_graph_output():
            return True
        return value.producer() is not None and not value.is_graph_output() and value.graph is self.graph

    def bypass(self, node: ir.Node, value: ir.Value) -> None:
        """Remove ``node``, for whose first output ``value`` stands; see ``can_bypass``."""
        assert self.can_bypass(node, value), f"{value.name} cannot be returned in place of {node.name}"
        result = node.outputs[0]
        is_output, name = result.is_graph_output(), result.name
        result.replace_all_uses_with(value, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        if is_output:
            value.name = name

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        """Remove ``node`` (one output), for which ``value``, made by an operator, stands by its name."""
        (old,), name = node.outputs, node.outputs[0].name
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        value.name = name

    def remove(self, node: ir.Node) -> None:
        """Remove a node whose outputs nobody reads."""
        self.graph.remove(node, safe=True)

    def rename(self, value: ir.Value, name: str) -> None:
        """Give a value another name; the one that it had is free then."""
        if self._nodes is not None:
            self._values.discard(str(value.name))
            self._values.add(name)
        value.name = name

    def take_name(self, node: ir.Node) -> str:
        """The name of a node that is about to be replaced: from now on its replacement's, which so keeps it.

        Users know their nodes by name, in statistics and in per-layer options.
        """
        name = str(node.name)
        nodes = self._taken_nodes()
        node.name = fresh(f"{name}_replaced", nodes)
        nodes.discard(name)
        return name

    def _free_value(self, stem: str) -> str:
        self._taken_nodes()
        name, number = stem, 0
        while name in self._values or name in self.graph.initializers:
            number += 1
            name = f"{stem}_{number}"
        return name

    def _taken_nodes(self) -> set[str]:
        if self._nodes is None:
            self._nodes = set()
            self._values.update(str(i.name) for i in self.graph.inputs)
            for node in self.graph.all_nodes():
                self._nodes.add(str(node.name))
                self._values.update(str(o.name) for o in node.outputs)
        return self._nodes
