"""What a machine takes for encrypted computation, and what a network will take on it.

``Profile`` holds what was measured on a machine (``onnx-fhe calibrate-cost``); ``predict`` makes seconds and
bytes of a model that is not compiled yet, or of the statistics of one that is.
"""

from __future__ import annotations

from .predict import Prediction, predict
from .profile import Profile, cache_file, read_profile, this_machine, write_profile

__all__ = [
    "Prediction",
    "Profile",
    "cache_file",
    "predict",
    "read_profile",
    "this_machine",
    "write_profile",
]
