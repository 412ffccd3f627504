"""Fake quantization with straight-through gradients and learned scales, and the lattice of rounded tables.

Learned scales follow LSQ (Esser et al., "Learned Step Size Quantization", 2020): rounding passes gradients on
as if it were not there, so scales get theirs from what rounding and clipping lose.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

SHRINKING_HALVINGS = 14
"""Halvings of the interval in which the amount lies that weights are shrunk by."""


def straight_through(exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """The value of ``rounded`` with the gradient of ``exact``."""
    # In this order the value is that of ``rounded`` to the last bit.
    return rounded.detach() + (exact - exact.detach())


class Budget:
    """What a neuron's integer weights may sum up to, so that its accumulator fits whatever the input.

    The accumulator of inputs that span ``width`` steps spans ``sum |q| * width``. Weights of a neuron that
    is over its budget are drawn towards zero all by the same amount, the least that suffices, before they
    are rounded: the Euclidean projection of A2Q+ (Colbert et al., 2024, arXiv 2401.10432), done on the
    integers themselves, so that the guarantee of A2Q (2023, arXiv 2308.13504) holds in every step.

    Args:
        max_sum: Largest sum of a neuron's absolute integers.
        axis: Axis of the neurons.

    Attributes:
        now: Largest sum at the moment; ``most`` in the end, more while training gets used to it.
    """

    def __init__(self, max_sum: int, axis: int) -> None:
        self.max_sum, self.axis = max_sum, axis
        self.now = float(max_sum)

    def sums(self, weights: torch.Tensor) -> torch.Tensor:
        """The sum of absolute values of each neuron: (neurons)."""
        return weights.abs().movedim(self.axis, 0).flatten(1).sum(dim=1)

    def shrunk(self, weights: torch.Tensor, top: int) -> torch.Tensor:
        """``weights``, any shape, drawn towards zero until their integers fit.

        Weights of one size give way together, so that ties may leave some of the budget unused.

        Args:
            weights: In integer steps.
            top: Largest integer.
        """
        rows = weights.abs().movedim(self.axis, 0).flatten(1)
        if bool((rows.round().clamp(max=top).sum(dim=1) <= self.now).all()):
            return weights
        low = torch.zeros(len(rows), 1)
        high = rows.amax(dim=1, keepdim=True)
        first = rows.round().clamp(max=top).sum(dim=1, keepdim=True) <= self.now
        for _ in range(SHRINKING_HALVINGS):
            middle = (low + high) / 2
            fits = (rows - middle).relu().round().clamp(max=top).sum(dim=1, keepdim=True) <= self.now
            low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
        amount = torch.where(first, torch.zeros_like(high), high).reshape(
            [-1 if i == self.axis else 1 for i in range(weights.ndim)]
        )
        return weights.sign() * (weights.abs() - amount).relu()


class FakeWeight(nn.Module):
    """An integer weight times a scale.

    The latent weight is in units of integer steps, so that one learning rate suits every layer.

    Args:
        codes: Integers that the weight starts from, any shape.
        scale: Broadcastable to ``codes``.
        learn_scale: Whether the scale may change.
        axis: Axis of the neurons.
    """

    mask: torch.Tensor
    """Zero where a weight was pruned, and has to stay zero."""

    def __init__(self, codes: np.ndarray, scale: np.ndarray, learn_scale: bool, axis: int = 0) -> None:
        super().__init__()
        self.axis = axis
        self.budget: Budget | None = None
        self.latent = nn.Parameter(torch.tensor(codes, dtype=torch.float32))
        self.log_scale = nn.Parameter(
            torch.tensor(np.log(scale), dtype=torch.float32), requires_grad=learn_scale
        )
        largest = max(1, int(np.abs(codes).max(initial=0)))
        self.top = 2 ** int(largest).bit_length() - 1
        self.register_buffer("mask", torch.ones_like(self.latent))

    def codes(self) -> torch.Tensor:
        """The integers, with the gradient of the latent weight."""
        kept = self.latent * self.mask
        fitting = kept.detach() if self.budget is None else self.budget.shrunk(kept.detach(), self.top)
        return straight_through(kept, fitting.round().clamp(-self.top, self.top))

    def scale(self) -> torch.Tensor:
        """The scale, broadcastable."""
        return self.log_scale.exp()

    def forward(self) -> torch.Tensor:
        """The weight that the circuit will have."""
        return self.codes() * self.scale()

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """Latent weights past the last integer would need many steps to come back."""
        self.latent.clamp_(-self.top - 0.45, self.top + 0.45)


class Factors(nn.Module):
    """Factors, learned by their logarithms: they differ by orders of magnitude. Those that are 0 stay 0.

    Args:
        values: Any shape, none negative.
    """

    used: torch.Tensor

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        used = values > 0
        self.log_scale = nn.Parameter(torch.tensor(np.log(np.where(used, values, 1)), dtype=torch.float32))
        self.register_buffer("used", torch.tensor(used.astype(np.float32)), persistent=False)

    def forward(self) -> torch.Tensor:
        """The factors."""
        return self.log_scale.exp() * self.used


class FakeActivation(nn.Module):
    """QuantizeLinear, Clip and DequantizeLinear of an activation.

    Args:
        scale: Scale of the quantizer.
        zero_point: Integer that stands for 0.
        low, high: Smallest and largest integer.
        learn_scale: Whether the scale may change.

    Attributes:
        free: Whether the scale may change, by training or (``Grids``) by looking.
    """

    def __init__(self, scale: float, zero_point: int, low: int, high: int, learn_scale: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(scale))), requires_grad=learn_scale)
        self.free = learn_scale
        self.zero_point, self.low, self.high = zero_point, low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is left of ``x``."""
        scale = self.log_scale.exp()
        steps = (x / scale).clamp(self.low - self.zero_point, self.high - self.zero_point)
        return straight_through(steps, steps.round()) * scale


class Lattice(nn.Module):
    """The rounding of an accumulator in front of its table, with the noise of a bootstrap.

    The accumulator is seen in integer steps, ``a = (z - shift) / unit``. Rounding leaves ``2^bits`` cells,
    the middle of cell k at ``origin + ratio * k``; both are set by ``Ranges`` from what calibration data
    shows. What a cell stands for is learned: its middle plus ``moved`` (in units of ``ratio``), for each
    channel.

    Args:
        bits: P, bits that reach the table.
        noise: Standard deviation of the noise, in cells (analysis/noise/noise.py).
        channels: Channels of the accumulator.
        axis: Axis of the channels.
    """

    ratio: torch.Tensor
    origin: torch.Tensor

    def __init__(self, bits: int, noise: float, channels: int, axis: int) -> None:
        super().__init__()
        self.bits, self.noise, self.axis = bits, noise, axis
        self.strength = 0.0
        self.noisy = True
        self.register_buffer("ratio", torch.zeros(()))
        self.register_buffer("origin", torch.zeros(()))
        self.moved = nn.Parameter(torch.zeros(channels, 2**bits))

    def forward(self, z: torch.Tensor, unit: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """``z`` as its table sees it: wholly, or partly while training gets used to it."""
        if self.strength == 0.0 or self.ratio.ndim == 0:
            return z
        place = (((z - shift) / unit - self.origin) / self.ratio).detach()
        read = place + self.noise * torch.randn_like(place) if self.noisy else place
        cell = torch.floor(read + 0.5).clamp(0, 2**self.bits - 1)
        channel = torch.arange(len(self.moved)).reshape([-1 if i == self.axis else 1 for i in range(z.ndim)])
        moved = self.moved.reshape(-1)[cell.long() + channel * 2**self.bits]
        return z + (cell - place + moved) * (self.ratio * unit * self.strength)
