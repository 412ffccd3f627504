"""The command line, ``onnx-fhe``: one module a command, thin over the Python API.

Nothing heavy is imported before a command runs, so that help comes at once.
"""

from __future__ import annotations

from .app import main

__all__ = ["main"]
