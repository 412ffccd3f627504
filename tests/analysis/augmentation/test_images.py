"""Images that are moved and turned as training samples."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fhe.analysis.augmentation.images import _turned, moved


def blobs(count: int, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    middle = np.random.default_rng(0).uniform(0.3, 0.7, (count, 2, 1, 1)) * side
    return np.exp(-((y - middle[:, 0]) ** 2 + (x - middle[:, 1]) ** 2) / side).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 1, 20, 20), (40, 400)])
def test_a_share_of_the_images_moves_and_the_others_stay(shape):
    images = blobs(40, 20).reshape(shape)
    found = moved(images, (20, 20), 0.5, np.random.default_rng(1))
    same = (found == images).reshape(40, -1).all(axis=1)
    assert found.shape == images.shape
    assert found.dtype == np.float32
    assert 8 <= same.sum() <= 32
    assert found.min() >= images.min()
    assert found.max() <= images.max()
    assert (moved(images, (20, 20), 0.0, np.random.default_rng(1)) == images).all()


def test_small_images_are_shifted_by_whole_pixels_only():
    images = np.random.default_rng(0).integers(0, 16, (30, 64)).astype(np.float32)
    found = moved(images, (8, 8), 1.0, np.random.default_rng(1))
    assert (found == np.rint(found)).all()
    assert (found != images).any()


def test_without_any_angle_an_image_stays_as_it_is(monkeypatch):
    for name in ("TURN", "STRETCH", "SHEAR"):
        monkeypatch.setattr(f"onnx_fhe.analysis.augmentation.images.{name}", 0.0)
    planes = np.random.default_rng(0).normal(size=(3, 2, 17, 20)).astype(np.float32)
    np.testing.assert_allclose(_turned(planes, np.random.default_rng(1)), planes, atol=1e-6)


def test_a_quarter_turn_is_that_of_numpy(monkeypatch):
    planes = np.random.default_rng(0).normal(size=(1, 1, 16, 16)).astype(np.float32)
    for name, spread in (("TURN", 1.0), ("STRETCH", 0.0), ("SHEAR", 0.0)):
        monkeypatch.setattr(f"onnx_fhe.analysis.augmentation.images.{name}", spread)

    class Quarter:
        def standard_normal(self, shape):
            return np.full(shape, np.pi / 2)

    found = _turned(planes, Quarter())
    np.testing.assert_allclose(found[0, 0], np.rot90(planes[0, 0]), atol=1e-5)
