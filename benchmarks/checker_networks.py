"""The checkerboard's data, and networks trained on it in torch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, FIELDS, NOISE, TEST = 100, 3, 0.01, 500
"""Points of a side, fields between its ends, deviation of the points, and how many are kept for testing."""

BATCH, RATE = 500, 0.01


@dataclass(frozen=True)
class Points:
    """Some points of the board.

    Attributes:
        inputs: (points, 2) float32.
        labels: (points) the colour, 0 or 1.
    """

    inputs: np.ndarray
    labels: np.ndarray


def board(seed: int) -> tuple[Points, Points]:
    """A 100 x 100 grid on the unit square, coloured in fields of a third, then moved a little.

    Returns:
        9,500 points to train on, 500 to test on. Points moved over an edge keep their colour, so that no
        classifier gets much above 95 %.
    """
    random = np.random.default_rng(seed)
    axis = np.linspace(0, 1, SIDE)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    labels = np.rint(points * FIELDS).sum(axis=1).astype(np.int64) % 2
    points = (points + random.normal(0, NOISE, points.shape)).astype(np.float32)
    order = random.permutation(len(points))
    train, test = order[:-TEST], order[-TEST:]
    return Points(points[train], labels[train]), Points(points[test], labels[test])


def train(data: Points, neurons: int, kept: int | None, seed: int, epochs: int) -> Any:
    """Train a 2-N-N-2 network with Adam and cross-entropy.

    Args:
        data: Training points.
        neurons: Of each hidden layer.
        kept: Weights that each neuron of the second and third layer keeps: the largest of the initial ones,
            by a mask that stands before training; None for all.
        seed: Of initial weights and batches.
        epochs: Passes over the data.

    Returns:
        A torch.nn.Sequential.
    """
    import torch
    from torch.nn.utils import prune

    torch.manual_seed(seed)
    # These networks are too small for more threads to help.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = [2, neurons, neurons, 2]
    layers: list[Any] = []
    for before, after in pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    masked = [layer for layer in network if kept and getattr(layer, "in_features", 0) > kept]
    for layer in masked:
        largest = layer.weight.detach().abs().topk(kept or 1, dim=1).indices
        mask = torch.zeros_like(layer.weight).scatter_(1, largest, 1.0)
        prune.custom_from_mask(layer, "weight", mask)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    inputs, labels = torch.tensor(data.inputs), torch.tensor(data.labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    for layer in masked:
        prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
    return network


def export(network: Any, path: Path) -> None:
    """Write an ONNX file with the names of torch's exporter (which wants packages of its own)."""
    nodes, weights, value = [], [], "input"
    linear = [layer for layer in network if hasattr(layer, "weight")]
    for i, layer in enumerate(linear, 1):
        for name in ("weight", "bias"):
            weights.append(numpy_helper.from_array(getattr(layer, name).detach().numpy(), f"fc{i}.{name}"))
        output = "logits" if layer is linear[-1] else f"/fc{i}/Gemm_output_0"
        read = [value, f"fc{i}.weight", f"fc{i}.bias"]
        nodes.append(helper.make_node("Gemm", read, [output], name=f"/fc{i}/Gemm", transB=1))
        if layer is not linear[-1]:
            value = f"/relu{i}/Relu_output_0"
            nodes.append(helper.make_node("Relu", [output], [value], name=f"/relu{i}/Relu"))
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("input", "logits")]
    graph = helper.make_graph(nodes, "checkerboard", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
