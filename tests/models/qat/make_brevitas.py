"""Writes the Brevitas models of this folder: QONNX and QCDQ exports of small networks, untrained.

Run by ``make models``, or ``PYTHONPATH=tests/models python make_brevitas.py [folder]``. Without Brevitas,
which the project does not depend on, the files stay as they are. ``brevitas.npz`` holds inputs (``NAME.x``)
and what Brevitas itself makes of them (``NAME.y``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from signature import sign

try:
    import torch
    from brevitas import nn as qnn
    from brevitas.export import export_onnx_qcdq, export_qonnx
    from brevitas.quant import (
        Int8ActPerTensorFloat,
        Int8Bias,
        Int8WeightPerChannelFloat,
        Int8WeightPerTensorFixedPoint,
        Int8WeightPerTensorFloat,
        ShiftedUint8ActPerTensorFloat,
        ShiftedUint8WeightPerTensorFloat,
        SignedBinaryActPerTensorConst,
        SignedBinaryWeightPerTensorConst,
        Uint8ActPerTensorFloat,
    )
    from torch import nn
except ImportError as error:
    print(f"make_brevitas: {error.name} is missing; its models stay as they are")
    sys.exit(0)


def mlp(bits: int, weights: type, shifted: bool = False) -> nn.Module:
    """A 10-12-8-4 network; every layer reads ``bits`` bits."""
    act = ShiftedUint8ActPerTensorFloat if shifted else Int8ActPerTensorFloat
    return nn.Sequential(
        qnn.QuantIdentity(act_quant=act, bit_width=bits, return_quant_tensor=False),
        qnn.QuantLinear(10, 12, bias=True, weight_quant=weights, weight_bit_width=bits),
        nn.BatchNorm1d(12),
        qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=bits),
        qnn.QuantLinear(12, 8, bias=False, weight_quant=weights, weight_bit_width=bits),
        qnn.QuantIdentity(act_quant=act, bit_width=bits),
        qnn.QuantLinear(8, 4, bias=True, weight_quant=weights, weight_bit_width=bits),
    )


def binary() -> nn.Module:
    """Weights and activations are -1 and 1."""
    act = {"act_quant": SignedBinaryActPerTensorConst, "min_val": -1.0, "max_val": 1.0}
    weight = {"weight_quant": SignedBinaryWeightPerTensorConst, "scaling_init": 1.0, "bias": False}
    return nn.Sequential(
        qnn.QuantIdentity(**act),
        qnn.QuantLinear(10, 12, **weight),
        nn.BatchNorm1d(12),
        qnn.QuantIdentity(**act),
        qnn.QuantLinear(12, 4, **weight),
    )


class Pooled(nn.Module):
    """Two convolutions, an average pooling that truncates, and a dense layer."""

    def __init__(self, bits: int, truncate: bool) -> None:
        super().__init__()
        weights = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": bits}
        self.input = qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True)
        self.first = qnn.QuantConv2d(1, 3, 3, padding=1, bias=True, bias_quant=Int8Bias, **weights)
        self.relu = qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)
        self.pool = (
            qnn.TruncAvgPool2d(2, bit_width=bits, return_quant_tensor=True) if truncate else nn.Identity()
        )
        self.second = qnn.QuantConv2d(3, 4, 3, stride=2, groups=1, bias=False, **weights)
        self.norm = nn.BatchNorm2d(4)
        self.act = qnn.QuantReLU(bit_width=bits)
        self.last = qnn.QuantLinear(4 if truncate else 36, 3, bias=True, **weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, 8, 8) to (N, 3)."""
        x = self.pool(self.relu(self.first(self.input(x))))
        x = self.act(self.norm(self.second(x)))
        return self.last(torch.flatten(x, 1))


def settle(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Scales and batch statistics from a few random batches; batch norm gets weights that are not 1."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    network.train()
    for _ in range(40):
        network(torch.randn(32, *shape))
    return network.eval()


def main(folder: Path) -> None:
    """Write every model."""
    networks = {
        "mlp_1bit": (binary, (10,)),
        "mlp_2bit": (lambda: mlp(2, Int8WeightPerTensorFloat), (10,)),
        "mlp_3bit_channel": (lambda: mlp(3, Int8WeightPerChannelFloat), (10,)),
        "mlp_4bit_fixed_point": (lambda: mlp(4, Int8WeightPerTensorFixedPoint), (10,)),
        "mlp_4bit_shifted": (lambda: mlp(4, ShiftedUint8WeightPerTensorFloat, shifted=True), (10,)),
        "cnn_4bit": (lambda: Pooled(4, truncate=False), (1, 8, 8)),
        "cnn_4bit_trunc": (lambda: Pooled(4, truncate=True), (1, 8, 8)),
    }
    samples: dict[str, np.ndarray] = {}
    for name, (make, shape) in networks.items():
        torch.manual_seed(0)
        network = settle(make(), shape)
        x = torch.randn(1, *shape)
        given = torch.randn(32, *shape)
        with torch.no_grad():
            samples |= {f"{name}.x": given.numpy(), f"{name}.y": network(given).numpy()}
        for kind, export in (("qonnx", export_qonnx), ("qcdq", export_onnx_qcdq)):
            path = folder / f"brevitas_{name}_{kind}.onnx"
            try:
                with torch.no_grad():
                    export(network, x, str(path), opset_version=13, dynamo=False)
                path.write_bytes(sign(path.stem, onnx.load(path), "brevitas", "torch"))
            except Exception as error:  # noqa: BLE001 - Brevitas says itself what it cannot export as QCDQ
                path.unlink(missing_ok=True)
                print(f"{path.name}: not exported: {str(error).splitlines()[0][:100]}")
    np.savez_compressed(folder / "brevitas.npz", **samples)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
