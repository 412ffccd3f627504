"""Writes the PyTorch models of this folder: quantization-aware training's fake-quantize, exported as QDQ.

Run by ``make models``, or ``PYTHONPATH=tests/models python make_torch.py [folder]``; without torch the file
stays as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
from signature import sign

try:
    import torch
    from torch import nn
    from torch.ao.quantization import (
        FakeQuantize,
        MovingAverageMinMaxObserver,
        PerChannelMinMaxObserver,
        disable_observer,
    )
except ImportError as error:
    print(f"make_torch: {error.name} is missing; its model stays as it is")
    sys.exit(0)


class Quantized(nn.Module):
    """A dense or convolutional layer whose weights are fake-quantized per channel to 8 bits."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.weights = FakeQuantize.with_args(
            observer=PerChannelMinMaxObserver,
            quant_min=-128,
            quant_max=127,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
        )()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer with quantized weights."""
        weight = self.weights(self.layer.weight)
        if isinstance(self.layer, nn.Linear):
            return nn.functional.linear(x, weight, self.layer.bias)
        return nn.functional.conv2d(x, weight, self.layer.bias, self.layer.stride, self.layer.padding)


def activation(bits: int = 8) -> FakeQuantize:
    """An affine quantizer of activations."""
    return FakeQuantize.with_args(
        observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=2**bits - 1, dtype=torch.quint8
    )()


def network() -> nn.Module:
    """A convolution and two dense layers."""
    return nn.Sequential(
        activation(),
        Quantized(nn.Conv2d(1, 3, 3, stride=2)),
        nn.ReLU(),
        activation(7),
        nn.Flatten(),
        Quantized(nn.Linear(27, 8)),
        nn.Tanh(),
        activation(),
        Quantized(nn.Linear(8, 3)),
    )


def main(folder: Path) -> None:
    """Write every model."""
    torch.manual_seed(0)
    made = network().train()
    for _ in range(20):
        made(torch.randn(16, 1, 8, 8))
    made = made.eval().apply(disable_observer)
    path = folder / "torch_fake_quantize.onnx"
    # The dynamo exporter does not take FakeQuantize modules.
    torch.onnx.export(
        made,
        (torch.randn(2, 1, 8, 8),),
        str(path),
        opset_version=13,
        dynamo=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
    )
    path.write_bytes(sign(path.stem, onnx.load(path), "torch"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
