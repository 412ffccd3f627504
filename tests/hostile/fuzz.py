"""Coverage-guided fuzzing of what reads files: ``make fuzz``, or ``python fuzz.py model|pipeline CORPUS...``.

Anything but a ``UserError`` is a find; atheris writes the input to a file. Mutations of models are those of
``mutate``, on top of atheris's own.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["onnx_fhe", "onnx_ir"]):
    from onnx_fhe.inspection import inspect_model
    from onnx_fhe.ir.errors import UserError
    from onnx_fhe.ir.guard import FileLimits
    from onnx_fhe.passes.framework.manager import PassManager
    from onnx_fhe.passes.framework.text import parse

import mutate

_FOLDER = Path(tempfile.mkdtemp(prefix="onnx-fhe-fuzz-"))
# Small limits: a run that takes a second finds nothing that one of a millisecond does not.
_LIMITS = FileLimits(bytes=2**20, nodes=500, elements=2**20, operations=2**24)


def model(content: bytes) -> None:
    """Load, normalize and analyse a model file."""
    path = _FOLDER / "model.onnx"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        inspect_model(path, _LIMITS)


def pipeline(content: bytes) -> None:
    """Parse a pipeline, look its passes up, and print it again."""
    text = content.decode("utf-8", "replace")
    # A file name would have the fuzzer read files.
    with contextlib.suppress(UserError):
        if not any(p.is_file for p in parse(text)):
            assert PassManager.parse(PassManager.parse(text).to_text()).to_text()


def _mutator(data: bytes, most: int, seed: int) -> bytes:
    if seed % 2:
        return bytes(atheris.Mutate(data, most))
    return mutate.mutate(data, random.Random(seed))[:most]


if __name__ == "__main__":
    target = sys.argv.pop(1)
    if target == "model":
        import corpus

        seeds = _FOLDER / "seeds"
        for _case, path in corpus.build(_FOLDER / "made"):
            if path.name == "model.onnx" and path.is_file() and path.stat().st_size < 20_000:
                seeds.mkdir(exist_ok=True)
                (seeds / _case.name).write_bytes(path.read_bytes())
        atheris.Setup([*sys.argv, str(seeds), "-max_len=20000"], model, custom_mutator=_mutator)
    else:
        atheris.Setup(sys.argv, pipeline)
    atheris.Fuzz()
