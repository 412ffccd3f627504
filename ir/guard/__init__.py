"""A file is input, not trust: what is checked before anything else reads a model file."""

from __future__ import annotations

from .limits import FileLimits
from .reading import read_model
from .sizes import check_sizes
from .structure import check_structure

__all__ = ["FileLimits", "check_sizes", "check_structure", "read_model"]
