"""What tests share: example networks with their data, the zoo of small ones, and which tests are slow."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from hypothesis import settings

# Before a test imports onnxruntime: it switches the telemetry off.
import onnx_fhe  # noqa: F401
from onnx_fhe import compiling
from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.testing import zoo as example_networks

# Helpers that compare say what differs, as tests do.
pytest.register_assert_rewrite("onnx_fhe.testing.texts", "onnx_fhe.testing.pipelines")

ROOT = Path(__file__).resolve().parent.parent

# On two busy cores a deadline for each example would fail by chance. CI tries the same examples each time.
settings.register_profile("onnx-fhe", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("onnx-fhe"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "onnx-fhe")


def _load(path: Path) -> ModuleType:
    """Import a file that belongs to no package (with importlib mode tests cannot import their neighbours)."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Seconds of processor time by test, or by file where most of its tests are slow (see the file).
SLOW = {
    name: float(seconds)
    for seconds, name in (
        line.split(maxsplit=1)
        for line in (ROOT / "tests" / "slow.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
}


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and put the files that take longest first: two processes then end together."""
    files: Counter[str] = Counter()
    for name, seconds in SLOW.items():
        files[name.split("::")[0]] += int(10 * seconds)
    for item in items:
        names = {item.nodeid, item.nodeid.split("[")[0], item.nodeid.split("::")[0]}
        if names & SLOW.keys() or item.get_closest_marker("encrypted"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: -files[item.nodeid.split("::")[0]])


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking through all that was imported, again and again.

    The command line sets the same threshold.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@dataclass(frozen=True)
class Example:
    """A network of examples/ and its files; the arrays are read anew on each access.

    Attributes:
        model: Path of the ONNX file; its input is ``input``, its output ``logits``.
        calibration: Path of the .npz with ``input``.
        test: Path of the .npz with ``input`` and ``labels``.
    """

    model: Path
    calibration: Path
    test: Path

    @property
    def calibration_data(self) -> dict[str, np.ndarray]:
        """500 training images by input name."""
        return dict(np.load(self.calibration))

    @property
    def test_data(self) -> dict[str, np.ndarray]:
        """450 unseen images by input name, without labels."""
        return {"input": np.load(self.test)["input"]}

    @property
    def labels(self) -> np.ndarray:
        """The digit of each test image."""
        return np.load(self.test)["labels"]


@dataclass(frozen=True)
class Small:
    """A network of the zoo.

    Attributes:
        name: Its name there.
        proto: The model, a copy of the test's own.
        data: 64 inputs by name.
    """

    name: str
    proto: onnx.ModelProto
    data: dict[str, np.ndarray]


def _example(name: str) -> Example:
    folder = ROOT / "examples"
    return Example(folder / f"{name}.onnx", folder / f"{name}.calibration.npz", folder / f"{name}.test.npz")


@pytest.fixture
def small_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `compile` makes has one parameter set, and keys that are not compressed: half the time of a test.

    Keys for several sets take longer than the lookups of a small circuit save, and to expand compressed keys
    takes as long as to make them. `test_compile_tries_its_circuit` runs on ciphertexts as users do.
    """
    plain = partial(LowerOptions, parameter_strategy="mono", compress_keys=False)
    monkeypatch.setattr(compiling, "LowerOptions", plain)


@pytest.fixture(scope="session")
def searches() -> ModuleType:
    """``tests/front_door/tuning/test_tune.py``: a small network, its data, and what tries pipelines of it."""
    return _load(ROOT / "tests" / "front_door" / "tuning" / "test_tune.py")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def digits_mlp() -> Example:
    """A trained 64-32-32-10 network."""
    return _example("digits_mlp")


@pytest.fixture(scope="session")
def digits_cnn() -> Example:
    """A trained network of three convolutions on 1x8x8 images."""
    return _example("digits_cnn")


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    """The module ``onnx_fhe.testing.zoo``: ``zoo.swish()`` is a model, ``zoo.samples(model)`` its inputs."""
    return example_networks


@pytest.fixture(params=list(example_networks.NETWORKS))
def small(request: pytest.FixtureRequest) -> Small:
    """Every network of the zoo, one after the other."""
    proto = example_networks.NETWORKS[request.param]()
    return Small(request.param, proto, example_networks.samples(proto))
