"""Linear algebra runs on one thread inside of passes, whenever its library was loaded."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import numpy
from threadpoolctl import threadpool_info
from onnx_fhe.ir.threads import one_thread

def threads():
    return {p["filepath"]: p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}

with one_thread():
    first = threads()
import scipy.linalg
before = threads()
with one_thread():
    inside = threads()
assert set(first.values()) == set(inside.values()) == {1}, (first, inside)
assert set(first) < set(inside) == set(before)
assert threads() == before
"""


def test_libraries_that_are_loaded_later_are_found():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
