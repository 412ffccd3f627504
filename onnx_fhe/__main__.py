"""``python -m onnx_fhe`` is ``onnx-fhe``."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
