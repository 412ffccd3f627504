"""What a circuit's files remember of the options that it was made with."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest
from pydantic import TypeAdapter

from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.concrete.options import options_of, settings_of
from onnx_fhe.backends.concrete_runtime.store import Settings

NOT_KEPT = {"seed", "progress"}
"""What decides nothing about the program."""


def test_every_option_that_decides_about_the_program_is_kept():
    wanted = {f.name for f in fields(LowerOptions)} - NOT_KEPT - {"parameter_strategy"}
    assert {f.name for f in fields(Settings)} == wanted | {"strategy"}


@pytest.mark.parametrize(
    "options",
    [
        LowerOptions(),
        LowerOptions(p_error=None, global_p_error=1e-3, security_level=132),
        LowerOptions(p_error=1e-3, compress_keys=False, loop_parallelize=False),
    ],
)
def test_what_is_kept_makes_the_same_program_again(options):
    settings = settings_of(options, "multi")
    read = TypeAdapter(Settings).validate_python(asdict(settings))
    assert read == settings
    again = options_of(read)
    assert again.parameter_strategy == "multi"
    kept = {f.name for f in fields(Settings)} - {"strategy"}
    assert all(getattr(again, name) == getattr(options, name) for name in kept)
