"""Finding out what an operator does by running it: no list of operators to maintain.

What is asked differs (whether samples are apart, whether elements are, which element goes where), and so do
the inputs that show it. What is the same stands here: one node runs on several inputs in one session, a node
that cannot be run has no answer, and nodes of one form are asked once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import onnx_ir as ir

from . import runtime
from .graph import once

Answer = TypeVar("Answer")


class NodeProber(Generic[Answer]):
    """Asks nodes one question, and remembers the answers for nodes of the same form.

    Args:
        opset: ai.onnx opset of the model that the nodes belong to.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self._known: dict[object, Answer | None] = {}

    def ask(
        self, node: ir.Node, sources: Sequence[ir.Value], probe: Callable[[], Answer | None]
    ) -> Answer | None:
        """The answer of ``probe``, or of an earlier one for a node of the same form.

        Args:
            node: The node.
            sources: Its inputs that are not constant.
            probe: Runs the node, by ``run``, and looks at what comes out.

        Returns:
            The answer; None where the node cannot be run on what ``probe`` gives it.
        """
        key = form_of(node, sources)
        if key not in self._known:
            try:
                self._known[key] = probe()
            except Exception:  # noqa: BLE001 - what cannot be run so does not do what is asked for
                self._known[key] = None
        return self._known[key]

    def run(
        self, node: ir.Node, runs: Sequence[Mapping[ir.Value, np.ndarray]], outputs: Sequence[ir.Value]
    ) -> list[list[np.ndarray]]:
        """For each of ``runs`` the arrays of ``outputs``; one session does all of them."""
        return runtime.run_nodes_often([node], runs, outputs, self.opset)


def form_of(node: ir.Node, sources: Sequence[ir.Value]) -> object:
    """Equal for nodes that do the same: operator, attributes, constants by content, types and shapes."""
    numbers = {v: i for i, v in enumerate(sources)}
    inputs = tuple(None if v is None else numbers.get(v, _content(v)) for v in node.inputs)
    attributes = tuple(sorted(str(a) for a in node.attributes.values()))
    kinds = tuple((str(v.shape), v.dtype) for v in sources)
    return node.domain, node.op_type, attributes, inputs, kinds


def _content(value: ir.Value) -> object:
    """Equal for constants of the same content; the value itself where it is none."""
    return once(value, "content", _digest) or value


def _digest(array: np.ndarray) -> object:
    data = array.tobytes() if array.dtype != object else str(array.tolist()).encode()
    return array.shape, array.dtype.str, hashlib.sha256(data).digest()
