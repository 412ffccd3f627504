"""JSON with a version: what is damaged, newer, or none of what it may be is said by name."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from pydantic import TypeAdapter

from onnx_fhe import versioned_json
from onnx_fhe.ir.errors import ArtifactError


@dataclass
class Point:
    x: int
    format: int = 2


def read(content: object) -> Point:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    versioned_json.parse(text, 2, damaged="it is damaged", newer="it is newer", do="update")
    return versioned_json.validate(text, TypeAdapter(Point), damaged="it is damaged")


def test_what_is_of_a_known_format_is_read():
    assert read({"format": 1, "x": 3}) == Point(3, 1)


@pytest.mark.parametrize(
    ("content", "what", "found"),
    [
        (b"{", "it is damaged", "Expecting"),
        (b"[" * 100_000, "it is damaged", "recursion"),
        ([1], "it is damaged", "no format version"),
        ({"format": "2"}, "it is damaged", "no format version"),
        ({"format": 0}, "it is damaged", "no format version"),
        ({"format": 3}, "it is newer", "format 3"),
        ({"format": 2, "x": "many"}, "it is damaged", "x: "),
    ],
)
def test_the_error_says_what_was_found(content, what, found):
    with pytest.raises(ArtifactError, match=what) as caught:
        read(content)
    assert found in caught.value.found
