"""Which libraries Concrete links of what it compiles: none where only the parameters are asked for.

It writes a static library each time, which nobody reads, and a shared one, which only those need who compute
with it. A linker takes as long as the rest of a small compilation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from concrete.fhe.compilation import server

_linked: ContextVar[bool] = ContextVar("_linked", default=True)
_Compiler = server.Compiler


@contextlib.contextmanager
def unlinked() -> Iterator[None]:
    """While inside, this thread's compilations yield parameters and costs, and nothing that runs."""
    before = _linked.set(False)
    try:
        yield
    finally:
        _linked.reset(before)


def _compiler(output: str, runtime: str, generate_shared_lib: bool = True, **more: Any) -> Any:
    """Concrete's compiler, for the libraries that are used."""
    shared = generate_shared_lib and _linked.get()
    return _Compiler(output, runtime, generate_shared_lib=shared, generate_static_lib=False, **more)


def install() -> None:
    """Have Concrete make no library that nobody uses; it has no setting for that."""
    server.Compiler = _compiler
