"""Random integer-level networks for the passes on tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_fhe.analysis.ranges.ranges import SoundRanges
from onnx_fhe.ir import dialect
from onnx_fhe.testing.integers import IntegerBuilder


class Network:
    """A random network whose tables declare sound ranges; some neurons are repeated or dead."""

    def __init__(self, seed: int) -> None:
        self.b = IntegerBuilder(seed, samples=4)
        self.rng = self.b.rng

    def sound(self, value: str) -> tuple[np.ndarray, np.ndarray]:
        model = ir.from_proto(onnx.shape_inference.infer_shapes(self.b.proto([value])))
        dialect.strip(model)
        found = next(o for n in model.graph for o in n.outputs if o.name == value)
        low, high = SoundRanges(model).of(found)
        return low[0], high[0]

    def table(self, x: str) -> str:
        """A lookup of a random kind; neurons that share a kind may be equal."""
        low, high = self.sound(x)
        axes = tuple(range(1, low.ndim))
        per_channel = bool(self.rng.integers(2))
        if per_channel:
            low, high = low.min(axis=axes), high.max(axis=axes)
        else:
            low, high = low.min(keepdims=True).reshape(-1)[:1], high.max(keepdims=True).reshape(-1)[:1]
        keep = int(self.rng.integers(3))
        if keep and int((high - low).max()) > 16:
            return self.rounded(x, low, high)
        size = int((high - low).max()) + 1
        rows = [self.row(start, size) for start in low]
        if len(rows) > 1 and self.rng.integers(2):
            rows[1] = rows[0]
        return str(self.b.lookup(x, np.stack(rows), low))

    def rounded(self, x: str, low: np.ndarray, high: np.ndarray) -> str:
        start = 4 * np.floor(low / 4)
        size = int(np.ceil((high - start).max() / 4)) + 2
        x = self.b.op("RoundBits", x, domain=dialect.DOMAIN, lsbs_to_remove=2, mode="exact")
        return str(self.b.lookup(x, np.stack([self.row(s, size) for s in start]), start, 4))

    def row(self, first: float, size: int) -> np.ndarray:
        kind = self.rng.integers(4)
        if kind == 0:
            return np.full(size, self.rng.integers(0, 4))
        if kind == 1 and size <= 16:
            slope, offset = self.rng.integers(1, 3), self.rng.integers(-2, 3)
            return np.arange(size) * slope + offset + first * slope
        if kind == 2:
            return np.maximum(np.arange(size) - size // 2, 0) % 8
        return np.asarray(self.rng.integers(0, 8, size))

    def dense(self, x: str, units: int) -> str:
        width = self.b.run(x).shape[-1]
        weights = self.rng.integers(-2, 3, (units, width))
        if self.rng.integers(2):
            weights[1] = weights[0]
        if self.rng.integers(2):
            weights[:, self.rng.integers(width)] = 0
        y = self.b.op("Gemm", x, self.b.constant(weights), transB=1)
        return self.constants(y, (units,))

    def conv(self, x: str, filters: int) -> str:
        channels, size = self.b.run(x).shape[1:3]
        kernel = int(self.rng.choice([1, 3]))
        weights = self.rng.integers(-1, 2, (filters, channels, kernel, kernel))
        if self.rng.integers(2):
            weights[1] = weights[0]
        pads = [int(size < 3 or self.rng.integers(2)) if kernel > 1 else 0] * 4
        y = self.b.op("Conv", x, self.b.constant(weights), pads=pads, kernel_shape=[kernel, kernel])
        return self.constants(y, (filters, 1, 1))

    def constants(self, x: str, shape: tuple[int, ...]) -> str:
        if self.rng.integers(2):
            x = self.b.op("Add", x, self.b.constant(self.rng.integers(-2, 3, shape)))
        return x

    def build(self) -> Any:
        b, rng = self.b, self.rng
        if rng.integers(2):
            x = self.conv(b.encrypt("x", (2, 4, 4), 0, int(rng.integers(1, 4))), 3)
            x = self.table(x)
            if rng.integers(2):
                x = self.table(self.conv(x, 3))
            x = b.op("Flatten", b.op("Transpose", x, perm=[0, 2, 3, 1]) if rng.integers(2) else x)
        else:
            x = self.table(self.dense(b.encrypt("x", (4,), 0, int(rng.integers(1, 4))), 4))
        for _ in range(int(rng.integers(1, 3))):
            x = self.layer(x)
        low, high = self.sound(x)
        b.decrypt(x, low=int(low.min()), high=max(int(high.max()), int(low.min()) + 1))
        return b.model()

    def layer(self, x: str) -> str:
        b, kind = self.b, self.rng.integers(5)
        if kind == 0:
            return self.table(self.table(x))
        if kind == 1:
            y = self.table(self.dense(x, 3))
            return b.op("Add", y, self.table(self.dense(x, 3)))
        if kind == 2:
            y = self.dense(x, 3)
            return b.op("Sub", self.table(y), self.table(y))
        if kind == 3:
            y = b.op("Mul", self.table(self.dense(x, 3)), b.constant(self.rng.integers(1, 3, (3,))))
            return self.flat(y)
        return self.dense(self.table(self.dense(x, 4)), 3)

    def flat(self, x: str) -> str:
        shape = self.b.constant([0, 3, 1], np.int64)
        y = self.table(self.b.op("Reshape", x, shape))
        return str(self.dense(self.b.op("Flatten", y), 3))

    def moving(self) -> Any:
        """Tables among operators that move, repeat, drop and pool elements."""
        b, rng = self.b, self.rng
        high = int(rng.choice([1, 3, 15]))
        x = b.encrypt("x", (2, 4, 4), 0, high)
        for _ in range(int(rng.integers(3, 7))):
            x, high = self.step(x, high)
        b.decrypt(x, low=-50, high=50)
        return b.model()

    def step(self, x: str, high: int) -> tuple[str, int]:
        b, rng = self.b, self.rng
        shape = b.run(x).shape
        kind = rng.integers(7)
        if kind <= 1 or high > 60:
            count = shape[1] if rng.integers(2) else 1
            rows = [np.sort(rng.integers(0, 4, high + 1)) for _ in range(count)]
            if rng.integers(2):
                rows[-1] = rng.integers(0, 8, high + 1)
            return b.lookup(x, np.stack(rows), np.zeros(count)), 8
        if kind == 2 and min(shape[2:]) >= 2:
            strides = [int(rng.integers(1, 3))] * 2
            return b.op("MaxPool", x, kernel_shape=[2, 2], strides=strides), high
        if kind == 3 and shape[2] >= 2:
            ends = [b.constant([v], np.int64) for v in (0, shape[2] - 1, 2)]
            return b.op("Slice", x, *ends), high
        if kind == 4:
            chosen = rng.integers(0, shape[1], int(rng.integers(1, 4)))
            return b.op("Gather", x, b.constant(chosen, np.int64), axis=1), high
        if kind == 5 and shape[3] <= 4:
            return b.op("Concat", x, x, axis=int(rng.integers(1, 4))), high
        return b.op("Transpose", x, perm=[0, *(1 + rng.permutation(3)).tolist()]), high
