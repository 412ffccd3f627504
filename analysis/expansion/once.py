"""Results about a model, kept until the model changes.

Cost, the backends and reports all ask for the same expansion of a finished model: it is made once.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import onnx_ir as ir

_Content = tuple[object, ...]


class Once:
    """A function from models to models whose result is kept until somebody edits the model.

    What is kept of a model goes with it. Whoever asks again gets the same object, and must not edit it.

    Args:
        compute: Makes another model, or returns the given one where there is nothing to do.
    """

    def __init__(self, compute: Callable[[ir.Model], ir.Model]) -> None:
        self._compute = compute
        # None stands for the model itself, which would never go if its own entry held it.
        self._known: WeakKeyDictionary[ir.Model, tuple[_Content, ir.Model | None]] = WeakKeyDictionary()

    def __call__(self, model: ir.Model) -> ir.Model:
        """The result for ``model`` as it is now."""
        content = _content(model)
        known = self._known.get(model)
        if known is not None and _same(known[0], content):
            return model if known[1] is None else known[1]
        result = self._compute(model)
        self._known[model] = content, None if result is model else result
        return result


def _content(model: ir.Model) -> _Content:
    """What a model consists of, as objects that no edit changes in place, and as plain values."""
    found: list[object] = [*model.graph.inputs, *model.graph.outputs, *sorted(model.metadata_props.items())]
    for node in model.graph:
        found += [node, node.name, *node.inputs, *node.attributes.values()]
        found += [v.const_value for v in node.inputs if v is not None]
        found += [(v.name, str(v.shape), v.dtype) for v in node.outputs]
    return tuple(found)


def _same(before: _Content, now: _Content) -> bool:
    return len(before) == len(now) and all(
        a is b or (isinstance(a, (str, tuple)) and a == b) for a, b in zip(before, now, strict=True)
    )
