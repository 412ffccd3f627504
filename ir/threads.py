"""Linear algebra on one thread, whose sums have the same order on every machine.

Libraries of linear algebra split products and factorizations among their threads, and sums of floating-point
numbers depend on how they are split. A weight that lies half-way between two integers then rounds either way,
and a pipeline makes another integer model on a machine of another number of cores.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[Any]:
    """While inside, numpy's and SciPy's linear algebra runs on one thread.

    onnxruntime has a fixed number of threads (``sessions``); ``distill`` sets those of PyTorch.
    """
    limited: AbstractContextManager[Any] = _libraries(len(sys.modules)).limit(limits=1, user_api="blas")
    return limited


@lru_cache(maxsize=1)
def _libraries(imported: int) -> ThreadpoolController:  # noqa: ARG001
    """The libraries that are loaded; looked for again when modules were imported, which may load more.

    To look through all that a process has mapped takes longer than most passes.
    """
    return ThreadpoolController()
