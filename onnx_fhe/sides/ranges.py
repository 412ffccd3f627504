"""What is encrypted, in a file of the client's half: names, ranges, and the floats that they stand for."""

from __future__ import annotations

import json

import numpy as np

from ..clipping import EncryptedRange
from ..ir.errors import ArtifactError


def write_ranges(ranges: tuple[EncryptedRange, ...]) -> bytes:
    """The content of ``ranges.json``."""
    plain = [
        vars(r)
        | {
            "lows": None if r.lows is None else np.asarray(r.lows, np.float64).tolist(),
            "highs": None if r.highs is None else np.asarray(r.highs, np.float64).tolist(),
        }
        for r in ranges
    ]
    return json.dumps(plain).encode()


def read_ranges(content: bytes) -> tuple[EncryptedRange, ...]:
    """What ``write_ranges`` wrote.

    Raises:
        ArtifactError: It is damaged.
    """
    try:
        return tuple(
            EncryptedRange(
                str(r["name"]),
                int(r["low"]),
                int(r["high"]),
                str(r["source"]),
                None if r["lows"] is None else np.array(r["lows"], np.float64),
                None if r["highs"] is None else np.array(r["highs"], np.float64),
            )
            for r in json.loads(content)
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError("the client half is damaged", found=f"ranges.json: {error}") from error
