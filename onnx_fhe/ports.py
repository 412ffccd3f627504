"""Inputs and outputs of a network, as files describe them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """An input or output of a network.

    Attributes:
        name: Its name.
        shape: Sizes of its axes; a free axis has a name, or None.
        dtype: Name of its type: ONNX's in a manifest, numpy's in a client half, for a client has no onnx.
    """

    name: str
    shape: tuple[int | str | None, ...]
    dtype: str
