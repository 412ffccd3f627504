"""The backend that makes circuits with concrete-python."""

from __future__ import annotations

from ...ir.deferred import without

# Concrete evaluates convolutions and maxima in Python with torch, which takes longer to import than all else.
with without("torch"):
    from . import linking, scratch

scratch.install()
linking.install()
