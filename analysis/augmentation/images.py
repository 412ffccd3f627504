"""Images as training samples: which inputs are images, and how images are moved and turned a little."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

TURNED_SIDE = 16
"""Pixels of the shorter side from which on images are turned and stretched: smaller ones would blur."""
TURN, STRETCH, SHEAR = 0.1, 0.06, 0.12
"""Standard deviations of the angle (radians), of the size, and of how far rows slide over each other."""
CHUNK_IMAGES = 1024
"""Images that are turned at once: it takes some times their memory."""


def moved(images: np.ndarray, size: tuple[int, int], share: float, random: np.random.Generator) -> np.ndarray:
    """A share of the images shifted by up to a twelfth of their size (one pixel at least).

    Those are turned and stretched a little as well, where they have pixels enough.

    Args:
        images: (images, ...), height and width on the last axes or flat on the last one.
        size: Height and width.
        share: Share of the images that are moved; the others stay as they are.
        random: Source of chance.
    """
    height, width = size
    planes = images.reshape(len(images), -1, height, width)
    result = planes.copy()
    chosen = random.random(len(images)) < share
    if min(height, width) >= TURNED_SIDE:
        for part in np.array_split(np.flatnonzero(chosen), chosen.sum() // CHUNK_IMAGES + 1):
            result[part] = _turned(planes[part], random)
        planes = result.copy()
    reach = max(1, min(height, width) // 12)
    moves = random.integers(-reach, reach + 1, size=(len(images), 2))
    moves[~chosen] = 0
    for dy, dx in np.unique(moves, axis=0):
        if not (dy or dx):
            continue
        together = np.flatnonzero((moves == (dy, dx)).all(axis=1))
        padded = np.pad(planes[together], ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="edge")
        result[together] = padded[:, :, reach - dy : reach - dy + height, reach - dx : reach - dx + width]
    return result.reshape(images.shape)


def _turned(planes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each image turned, stretched and sheared about its middle (bilinear interpolation)."""
    count, channels, height, width = planes.shape
    angle, size, slide = (random.standard_normal((count, 1)) * s for s in (TURN, STRETCH, SHEAR))
    size = np.exp(size)
    y, x = (a.reshape(1, -1) for a in np.mgrid[:height, :width].astype(np.float32))
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    from_y = (np.sin(angle) * x + np.cos(angle) * y) / size + (height - 1) / 2
    from_x = (np.cos(angle) * x - np.sin(angle) * y) / size + slide * y + (width - 1) / 2
    from_y, from_x = from_y.clip(0, height - 1), from_x.clip(0, width - 1)
    top, left = np.floor(from_y).astype(np.intp), np.floor(from_x).astype(np.intp)
    down, right = ((a - b).astype(np.float32)[:, None] for a, b in ((from_y, top), (from_x, left)))
    below, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    flat = planes.reshape(count, channels, height * width)

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return np.take_along_axis(flat, (row * width + column)[:, None], axis=2)

    upper = at(top, left) * (1 - right) + at(top, beside) * right
    lower = at(below, left) * (1 - right) + at(below, beside) * right
    return np.asarray((upper * (1 - down) + lower * down).reshape(planes.shape), planes.dtype)


def image_sizes(data: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
    """Height and width of inputs that are images: (batch, channels, height, width), or such images laid flat.

    A flat input counts as a square image when what would be vertical neighbours look alike, which chance or
    a table of features does not bring about.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, array in data.items():
        if not np.issubdtype(array.dtype, np.floating):
            continue
        if array.ndim == 4 and min(array.shape[2:]) >= 4:
            found[name] = int(array.shape[2]), int(array.shape[3])
            continue
        flat = array.reshape(len(array), -1)
        for channels in (1, 3):
            side = round((flat.shape[1] / channels) ** 0.5)
            if side >= 6 and channels * side * side == flat.shape[1] and _looks_flat(flat, side, channels):
                found[name] = side, side
                break
    return found


def _looks_flat(flat: np.ndarray, side: int, channels: int) -> bool:
    planes = flat.reshape(len(flat), channels, side, side).astype(np.float64)
    planes = planes - planes.mean(axis=0)
    spread = np.sqrt((planes**2).mean(axis=0)) + 1e-9

    def alike(a: np.ndarray, b: np.ndarray, of_a: np.ndarray, of_b: np.ndarray) -> float:
        return float(((a * b).mean(axis=0) / (of_a * of_b)).mean())

    vertical = alike(planes[:, :, 1:], planes[:, :, :-1], spread[:, 1:], spread[:, :-1])
    horizontal = alike(planes[..., 1:], planes[..., :-1], spread[..., 1:], spread[..., :-1])
    half = side // 2
    distant = alike(
        planes[:, :, half:], planes[:, :, : side - half], spread[:, half:], spread[:, : side - half]
    )
    return min(vertical, horizontal) > 0.25 and min(vertical, horizontal) > 2 * abs(distant)
