"""Data files: what is read, and each thing that is refused with what was found and allowed."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from onnx_fhe.ir.data import Data, read_npz
from onnx_fhe.ir.errors import DataError
from onnx_fhe.ir.matching import calibration_for


def model(inputs: str) -> ir.Model:
    return ir.from_proto(
        parser.parse_model(
            f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => (float y) {{ y = Sin(x) }}'
        )
    )


ONE = "float[N,1,4,4] x"
TWO = "float[N,3] x, int64[N] k"


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        path = tmp_path / "d.npz"
        np.savez(path, **arrays)
        return path

    return write


def refused(action, *parts: str) -> DataError:
    with pytest.raises(DataError) as caught:
        action()
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    return caught.value


def test_arrays_and_labels(npz):
    data = read_npz(npz(x=np.ones((5, 3)), k=np.arange(5), labels=np.arange(5.0)))
    assert set(data.arrays) == {"x", "k"}
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    found = calibration_for(model(TWO), data)
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        "x": ((5, 3), np.dtype(np.float32)),
        "k": ((5,), np.dtype(np.int64)),
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float16, bool])
def test_numbers_are_cast_without_complaint(dtype, npz):
    found = calibration_for(model(ONE), read_npz(npz(x=np.ones((2, 1, 4, 4), dtype))))["x"]
    assert found.dtype == np.float32
    assert (found == 1).all()


def test_a_single_array_will_do_under_any_name(npz, tmp_path):
    found = calibration_for(model(ONE), read_npz(npz(images=np.zeros((2, 1, 4, 4)), labels=np.zeros(2))))
    assert list(found) == ["x"]
    np.savez(tmp_path / "u.npz", np.zeros((2, 1, 4, 4)))
    assert list(calibration_for(model(ONE), read_npz(tmp_path / "u.npz"))) == ["x"]


def test_an_array_besides_the_inputs_is_no_harm(npz):
    found = calibration_for(model(ONE), read_npz(npz(x=np.zeros((2, 1, 4, 4)), other=np.zeros(7))))
    assert list(found) == ["x"]


def test_a_static_batch_takes_any_number_of_samples(npz):
    assert len(calibration_for(model("float[1,3] x"), read_npz(npz(x=np.zeros((7, 3)))))["x"]) == 7


def test_the_name(npz):
    path = npz(a=np.zeros((2, 3)), k=np.zeros(2, int))
    refused(lambda: calibration_for(model(TWO), read_npz(path)), str(path), "'x'", "'a', 'k'", "(samples, 3)")


def test_the_shape(npz):
    wrong = read_npz(npz(x=np.zeros((2, 1, 5, 4))))
    refused(lambda: calibration_for(model(ONE), wrong), wrong.file, "(2, 1, 5, 4)", "(samples, 1, 4, 4)")


def test_a_missing_batch_axis_gets_advice(npz):
    data = read_npz(npz(x=np.zeros((1, 4, 4))))
    refused(lambda: calibration_for(model(ONE), data), "array[None]")


def test_a_single_number(npz):
    data = read_npz(npz(x=np.float32(1)))
    refused(lambda: calibration_for(model(ONE), data), "single number")
    refused(lambda: calibration_for(model("float[] x"), data), "single number")


def test_flat_samples_get_advice(npz):
    data = read_npz(npz(x=np.zeros((9, 16))))
    refused(lambda: calibration_for(model(ONE), data), "array.reshape(-1, 1, 4, 4)")


def test_numbers_of_samples(npz):
    data = read_npz(npz(x=np.zeros((2, 3)), k=np.zeros(4, int)))
    refused(lambda: calibration_for(model(TWO), data), "'x': 2", "'k': 4")
    empty = read_npz(npz(x=np.zeros((0, 1, 4, 4))))
    refused(lambda: calibration_for(model(ONE), empty), "no samples")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(value, npz):
    array = np.zeros((3, 1, 4, 4))
    array[2, 0, 1, 1] = value
    data = read_npz(npz(x=array))
    refused(lambda: calibration_for(model(ONE), data), "sample 2", "1 of 48")


def test_values_too_large_for_the_type(npz):
    big = read_npz(npz(x=np.full((1, 1, 4, 4), 1e300)))
    refused(lambda: calibration_for(model(ONE), big), "too large")
    half = read_npz(npz(x=np.zeros((1, 3)), k=np.array([0.5])))
    refused(lambda: calibration_for(model(TWO), half), "'k'", "whole numbers")


def test_words(npz):
    data = read_npz(npz(x=np.array([["a", "b", "c"]])))
    refused(lambda: calibration_for(model("float[N,3] x"), data), "not made of numbers")


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (np.zeros(3), "3 labels, 2 samples"),
        (np.zeros((2, 10)), "argmax"),
        (np.array(["a", "b"]), "not numbers"),
        (np.array([0, np.nan]), "NaN"),
    ],
)
def test_labels(labels, part, npz):
    refused(lambda: read_npz(npz(x=np.zeros((2, 1, 4, 4)), labels=labels)), part)


def test_labels_given_by_hand_are_checked_too():
    data = Data({"x": np.zeros((2, 1, 4, 4))}, np.zeros(5))
    refused(lambda: calibration_for(model(ONE), data), "5 labels, 2 samples")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("pickled_code_ran",))


def test_pickled_objects_are_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("p.npz", x=np.array([Bomb()], dtype=object))
    refused(lambda: read_npz("p.npz"), "'x'", "objects")
    (tmp_path / "q.npz").write_bytes(np.array([Bomb()], dtype=object).dumps())
    refused(lambda: read_npz("q.npz"), "not an .npz")
    assert not (tmp_path / "pickled_code_ran").exists()


def test_other_files(tmp_path):
    refused(lambda: read_npz(tmp_path / "none.npz"), "no such data file", "none.npz")
    refused(lambda: read_npz(tmp_path), "folder")
    path = tmp_path / "f.npz"
    for content in (b"", b"a,b\n1,2\n", b"PK\x03\x04 cut short"):
        path.write_bytes(content)
        refused(lambda: read_npz(path), "not an .npz", "numpy.savez")
    np.save(tmp_path / "one.npy", np.zeros(3))
    refused(lambda: read_npz(tmp_path / "one.npy"), "a single .npy array")
    np.savez(path)
    refused(lambda: read_npz(path), "no arrays")


def test_damaged_members(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((50, 3)))
    path = tmp_path / "d.npz"
    for content in (buffer.getvalue()[:100], b"\x93NUMPY junk", b"text"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
        refused(lambda: read_npz(path), "'x'")
