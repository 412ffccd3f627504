"""Networks that ``compile_time.py`` makes: two trained regressors, and dense networks of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

CALIBRATION, HELD_OUT, TRAINING, STEPS, BATCH, RATE = 500, 1000, 4000, 4000, 256, 2e-3
"""Samples of the regressors, and how they are trained."""

INPUTS, OUTPUTS = 16, 4
"""Of the dense networks."""

Layers = Sequence[tuple[np.ndarray, np.ndarray]]
"""Weight (outputs, inputs) and bias of each layer; Relu stands between two."""


@dataclass(frozen=True)
class Network:
    """A model file and its data.

    Attributes:
        calibration: Inputs that it is compiled with.
        held_out: Inputs that it is compared on with what was compiled.
    """

    name: str
    model: Path
    calibration: Path
    held_out: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Regressor:
    """A network to be trained on a function of inputs between -1 and 1.

    Attributes:
        sizes: Elements of the input, of each hidden layer, and of the output.
        function: (samples, inputs) to (samples, outputs).
    """

    sizes: tuple[int, ...]
    function: Callable[[np.ndarray], np.ndarray]


def _waves(x: np.ndarray) -> np.ndarray:
    """Smooth in all inputs: its accumulators are wide."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 16, 5))
    return np.asarray(np.sin(0.7 * x @ a) + np.tanh(x @ b) * x[:, :5])


def _controller(x: np.ndarray) -> np.ndarray:
    """Edges and steps of few inputs, as in the tables that controllers of aircraft are trained on."""
    a = 2 * np.random.default_rng(6).normal(size=(5, 5))
    return np.stack(
        [
            np.sin(3 * x[:, 0] * x[:, 1]) + np.abs(x[:, 2] - x[:, 3]),
            3 * np.maximum(x[:, 0], x[:, 4]) - np.hypot(x[:, 1], x[:, 2]),
            np.arctan2(x[:, 1], x[:, 0]),
            np.sign(x[:, 3]) * x[:, 4],
            (x @ a).max(axis=1),
        ],
        axis=1,
    )


REGRESSORS = {
    "regressor_16-64-32-32-5": Regressor((16, 64, 32, 32, 5), _waves),
    "regressor_5-50x6-5": Regressor((5, *[50] * 6, 5), _controller),
}


def regressor(name: str, folder: Path, steps: int = STEPS) -> Network:
    """Train one of ``REGRESSORS`` (ten seconds or so), or take what lies in the folder already."""
    wanted = REGRESSORS[name]
    model, calibration, test = (folder / f"{name}{end}" for end in (".onnx", ".calibration.npz", ".test.npz"))
    if not all(f.is_file() for f in (model, calibration, test)):
        _save(_train(wanted, steps), model)
        rng = np.random.default_rng(99)
        for path, count in ((calibration, CALIBRATION), (test, HELD_OUT)):
            np.savez(path, x=_uniform(rng, count, wanted.sizes[0]))
    return Network(name, model, calibration, (test,))


def dense(width: int, depth: int, samples: int, folder: Path, seed: int = 0) -> Network:
    """A ReLU network of ``depth`` hidden layers of ``width`` neurons with random weights, and its data."""
    rng = np.random.default_rng(seed)
    sizes = [INPUTS, *[width] * depth, OUTPUTS]
    layers = [(rng.normal(size=(b, a)) * (2 / a) ** 0.5, rng.normal(size=b) / 10) for a, b in pairwise(sizes)]
    name = f"dense_{width}x{depth}_{samples}"
    model, calibration = folder / f"{name}.onnx", folder / f"{name}.calibration.npz"
    _save(layers, model)
    np.savez(calibration, x=_uniform(rng, samples, INPUTS))
    return Network(name, model, calibration)


def _uniform(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    return rng.uniform(-1, 1, (count, size)).astype(np.float32)


def _train(wanted: Regressor, steps: int) -> Layers:
    """Adam on the mean squared error of standardized outputs."""
    import torch

    torch.manual_seed(0)
    x = _uniform(np.random.default_rng(0), TRAINING, wanted.sizes[0])
    y = wanted.function(x)
    inputs = torch.tensor(x)
    outputs = torch.tensor(((y - y.mean(axis=0)) / y.std(axis=0)).astype(np.float32))
    linear = [torch.nn.Linear(a, b) for a, b in pairwise(wanted.sizes)]
    network = torch.nn.Sequential(*[m for layer in linear for m in (layer, torch.nn.ReLU())][:-1])
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    for _ in range(steps):
        chosen = torch.randint(0, TRAINING, (BATCH,))
        loss = ((network(inputs[chosen]) - outputs[chosen]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in linear]


def _save(layers: Layers, path: Path) -> None:
    """Write a ReLU network."""
    nodes, constants, last = [], [], "x"
    for i, (weight, bias) in enumerate(layers):
        constants += [
            numpy_helper.from_array(a.astype(np.float32), f"{k}{i}") for k, a in (("w", weight), ("b", bias))
        ]
        ends = i == len(layers) - 1
        out = "y" if ends else f"z{i}"
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [out], f"fc{i}", transB=1))
        if not ends:
            last = f"a{i}"
            nodes.append(helper.make_node("Relu", [out], [last], f"relu{i}"))
    shapes = [("x", layers[0][0].shape[1]), ("y", layers[-1][0].shape[0])]
    x, y = (helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, ["N", n]) for k, n in shapes)
    graph = helper.make_graph(nodes, path.stem, [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
