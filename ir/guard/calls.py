"""Functions that call functions: what they expand to, computed without expanding them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx

from ..errors import ModelError
from .limits import FileLimits, hint

_COUNT_CEILING = 10**40
"""Counts stop growing here; ten functions that call each other a thousand times are past it."""

Key = tuple[str, str]


def expanded(
    proto: onnx.ModelProto,
    counts: Mapping[int, int],
    called: Mapping[int, Counter[Key]],
    limits: FileLimits,
) -> int:
    """Number of nodes of ``proto`` with every function call replaced by its body.

    Args:
        proto: The model.
        counts: Number of nodes of each function by its index; of the graph under -1.
        called: How often each operator occurs there.
        limits: For the depth of calls.

    Raises:
        ModelError: A function calls itself, or calls go too deep.
    """
    index = {(f.domain, f.name): i for i, f in enumerate(proto.functions)}
    total: dict[int, int] = {}
    depth: dict[int, int] = {}
    open_: set[int] = set()
    stack = [-1, *range(len(proto.functions))]
    while stack:
        at = stack[-1]
        inner = [(index[k], n) for k, n in called.get(at, Counter()).items() if k in index]
        if at not in open_:
            open_.add(at)
            waiting = [i for i, _ in inner if i not in total]
            if any(i in open_ for i in waiting):
                # Open and not done: this is inside it.
                function = next(proto.functions[i] for i in waiting if i in open_)
                raise ModelError(
                    "a function of the model calls itself",
                    op=function.name,
                    found=f"{function.name} of domain {function.domain!r}",
                    allowed="functions that call other functions only",
                )
            if waiting:
                stack += waiting
                continue
        stack.pop()
        if at in total:
            continue
        own = counts.get(at, 0) - sum(n for _, n in inner)
        total[at] = min(own + sum(n * total[i] for i, n in inner), _COUNT_CEILING)
        depth[at] = 1 + max((depth[i] for i, _ in inner), default=-1)
        if depth[at] > limits.nesting:
            raise ModelError(
                "the model's functions call each other too deep",
                found=f"more than {limits.nesting} in a chain",
                allowed=f"up to {limits.nesting}",
                do=hint("nesting"),
            )
    return total[-1]
