"""Trains the two example networks on scikit-learn's handwritten digits and writes them as ONNX.

    python examples/train_digits.py [FOLDER]

It writes, for NAME in digits_mlp and digits_cnn, to FOLDER (default: the folder of this script):

    NAME.onnx                the trained network: `input` (N, 64) or (N, 1, 8, 8) to `logits` (N, 10)
    NAME.calibration.npz     500 training images without labels, as `input`
    NAME.test.npz            450 images that were never trained on, as `input` and `labels`

Pixels are scaled from 0..16 to 0..1. The results are committed, so nobody needs to run this; it takes a few
seconds on one core and gives the same files each time on the same machine and versions.

Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository
(https://doi.org/10.24432/C50P49), CC BY 4.0, as shipped with scikit-learn (1,797 images of 8x8 pixels).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 20
OPSET = 17
EPOCHS = 60
CALIBRATION = 500
TEST = 450


def digits_mlp() -> nn.Sequential:
    """64-32-32-10, with ReLU: 64 bootstraps."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


def digits_cnn() -> nn.Sequential:
    """Three convolutions and a dense layer, with ReLU: 128 + 64 + 32 bootstraps."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),  # 8 x 4 x 4
        nn.Conv2d(8, 16, 3), nn.ReLU(),                      # 16 x 2 x 2
        nn.Conv2d(16, 32, 2), nn.ReLU(),                     # 32 x 1 x 1
        nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def train(network: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> None:
    """Adam, cosine schedule, a little weight decay; images move by a pixel's fraction of noise."""
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            noisy = (x[batch] + 0.1 * torch.randn(x[batch].shape, generator=generator)).clamp(0, 1)
            loss = nn.functional.cross_entropy(network(noisy), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


def to_onnx(network: nn.Sequential, name: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The network as ONNX with a free batch axis ``N``, built node by node; ``shape`` is one sample's."""
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    value = "input"
    for i, layer in enumerate(network):
        output = "logits" if i == len(network) - 1 else f"/{i}/out"
        inputs, attributes = [value], {}
        if isinstance(layer, nn.Linear | nn.Conv2d):
            for parameter in ("weight", "bias"):
                array = getattr(layer, parameter).detach().numpy()
                initializers.append(numpy_helper.from_array(array, f"{i}.{parameter}"))
                inputs.append(f"{i}.{parameter}")
        if isinstance(layer, nn.Linear):
            op, attributes = "Gemm", {"transB": 1}
        elif isinstance(layer, nn.Conv2d):
            op = "Conv"
            attributes = {
                "kernel_shape": layer.kernel_size,
                "strides": layer.stride,
                "pads": [*layer.padding, *layer.padding],
            }
        else:
            op = {nn.ReLU: "Relu", nn.Flatten: "Flatten"}[type(layer)]
        nodes.append(helper.make_node(op, inputs, [output], name=f"/{i}/{op}", **attributes))
        value = output
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="onnx-fhe examples"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def accuracy(model: onnx.ModelProto, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose largest logit is their label, in onnxruntime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": images})
    return float((logits.argmax(axis=1) == labels).mean())


def main(folder: Path) -> None:
    """Train and write both networks."""
    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=TEST, random_state=SEED, stratify=labels
    )
    # Sums in another order round differently: one thread, so that the files come out the same.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for make, shape in ((digits_mlp, (64,)), (digits_cnn, (1, 8, 8))):
        torch.manual_seed(SEED)
        network = make()
        train(network, x_train.reshape(-1, *shape), y_train)
        name = make.__name__
        model = to_onnx(network, name, shape)
        x = x_test.reshape(-1, *shape)
        onnx.save(model, folder / f"{name}.onnx")
        np.savez_compressed(
            folder / f"{name}.calibration.npz", input=x_train[:CALIBRATION].reshape(-1, *shape)
        )
        np.savez_compressed(folder / f"{name}.test.npz", input=x, labels=y_test)
        print(f"{name}: {100 * accuracy(model, x, y_test):.1f} % of {len(x)} test images")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
