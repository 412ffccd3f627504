"""How each operator of ai.onnx is called for docs/operators.md, where it takes more than one tensor.

A call is a body in ONNX text, from ``h`` (2 x 4 x 4, encrypted) and ``g`` (the same shape) to ``m``, and its
constants.
"""

from __future__ import annotations

import numpy as np

Cases = dict[str, tuple[str, dict[str, np.ndarray]]]
"""Calls of one operator, by what is encrypted and what is not."""
INTS = np.int64


def normal(*size: int) -> np.ndarray:
    """Constants for examples."""
    return np.random.default_rng(sum(size)).normal(size=size).astype(np.float32)


def _pair(op: str, **weights: np.ndarray) -> Cases:
    return {
        "a constant": (f"m = {op}(h, c)", weights or {"c": np.float32(0.5)}),
        "two encrypted": (f"m = {op}(h, g)", {}),
    }


def _bits(op: str) -> Cases:
    four = {"four": np.float32(4)}
    first, second = "u = Mul(h, four) i = Cast<to=6>(u) ", "v = Mul(g, four) j = Cast<to=6>(v) "
    return {
        "a constant": (f"{first}m = {op}(i, c)", {"c": np.int32(3), **four}),
        "two encrypted": (f"{first}{second}m = {op}(i, j)", four),
    }


def _logic(op: str) -> Cases:
    return {"two encrypted": (f"p = Greater(h, c) q = Less(g, c) m = {op}(p, q)", {"c": np.float32(0.1)})}


def one(body: str, **weights: np.ndarray) -> Cases:
    """The only call of an operator."""
    return {"": (body, weights)}


CALLS: dict[str, Cases] = {
    **{op: _pair(op) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Mod")},
    **{op: _pair(op) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")},
    **{op: _logic(op) for op in ("And", "Or", "Xor")},
    **{op: _bits(op) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")},
    "Mod": {
        "a constant": ("m = Mod<fmod=1>(h, c)", {"c": np.float32(0.5)}),
        "two encrypted": ("m = Mod<fmod=1>(h, g)", {}),
    },
    "Pow": {
        "a constant": ("m = Pow(h, c)", {"c": np.float32(2)}),
        "two encrypted": ("a = Abs(h) m = Pow(a, g)", {}),
    },
    "PRelu": {
        "a constant": ("m = PRelu(h, c)", {"c": normal(2, 1, 1)}),
        "two encrypted": ("m = PRelu(h, g)", {}),
    },
    "Not": one("p = Greater(h, c) m = Not(p)", c=np.float32(0.1)),
    "BitwiseNot": one("i = Cast<to=6>(h) m = BitwiseNot(i)"),
    "BitShift": one('i = Cast<to=12>(h) m = BitShift<direction="LEFT">(i, c)', c=np.uint32(1)),
    "Where": {
        "a constant condition": ("m = Where(c, h, g)", {"c": np.arange(32).reshape(2, 4, 4) % 3 == 0}),
        "an encrypted condition": ("p = Greater(h, c) m = Where(p, h, c)", {"c": np.float32(0.1)}),
        "all encrypted": ("p = Greater(g, c) m = Where(p, h, g)", {"c": np.float32(0.1)}),
    },
    "Cast": one("m = Cast<to=6>(h)"),
    "CastLike": one("m = CastLike(h, c)", c=np.int32(1)),
    "BatchNormalization": one("m = BatchNormalization(h, s, b, b, s)", s=np.float32([0.5, 2]), b=normal(2)),
    "InstanceNormalization": one("m = InstanceNormalization(h, s, b)", s=normal(2), b=normal(2)),
    "GroupNormalization": one("m = GroupNormalization<num_groups=1>(h, s, b)", s=normal(2), b=normal(2)),
    "LayerNormalization": one("m = LayerNormalization(h, s, b)", s=normal(4), b=normal(4)),
    "RMSNormalization": one("m = RMSNormalization(h, s)", s=normal(4)),
    "MeanVarianceNormalization": one("m = MeanVarianceNormalization<axes=[1,2,3]>(h)"),
    "LpNormalization": one("m = LpNormalization<axis=1>(h)"),
    "Softmax": one("m = Softmax<axis=-1>(h)"),
    "LRN": one("m = LRN<size=3>(h)"),
    "Conv": one("m = Conv<pads=[1,1,1,1]>(h, k)", k=normal(2, 2, 3, 3)),
    "ConvTranspose": one("m = ConvTranspose<strides=[2,2]>(h, k)", k=normal(2, 2, 2, 2)),
    "Gemm": one("r = Flatten(h) m = Gemm(r, k)", k=normal(32, 8)),
    "MatMul": {
        "a constant": ("m = MatMul(h, k)", {"k": normal(4, 5)}),
        "a constant on the left": ("m = MatMul(k, h)", {"k": normal(5, 4)}),
        "two encrypted": ("m = MatMul(h, g)", {}),
    },
    "Einsum": {
        "a constant": ('m = Einsum<equation="bcij,jk->bcik">(h, k)', {"k": normal(4, 3)}),
        "two encrypted": ('m = Einsum<equation="bcij,bcjk->bcik">(h, g)', {}),
    },
    "AveragePool": one("m = AveragePool<kernel_shape=[2,2], strides=[2,2]>(h)"),
    "MaxPool": one("m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(h)"),
    "LpPool": one("m = LpPool<kernel_shape=[2,2], strides=[2,2]>(h)"),
    "ReduceMax": one("m = ReduceMax(h, a)", a=INTS([3])),
    "ReduceMin": one("m = ReduceMin(h, a)", a=INTS([3])),
    **{
        f"Reduce{k}": one(f"m = Reduce{k}(h, a)", a=INTS([3]))
        for k in ("Sum", "Mean", "L1", "L2", "SumSquare")
    },
    "ReduceLogSumExp": one("m = ReduceLogSumExp(h, a)", a=INTS([3])),
    "ReduceLogSum": one("e = Exp(h) m = ReduceLogSum(e, a)", a=INTS([3])),
    "CumSum": one("m = CumSum(h, a)", a=INTS(3)),
    "Concat": one("m = Concat<axis=1>(h, g)"),
    "Slice": one("m = Slice(h, s, e, a)", s=INTS([0]), e=INTS([3]), a=INTS([2])),
    "Split": one("m, n = Split<axis=1, num_outputs=2>(h)"),
    "Pad": one("m = Pad(h, p)", p=INTS([0, 0, 1, 1, 0, 0, 1, 1])),
    "Gather": {
        "constant indices": ("m = Gather<axis=1>(h, i)", {"i": INTS([1, 0])}),
        "encrypted indices": (
            "b = Clip(h, z, t) i = Cast<to=7>(b) m = Gather(k, i)",
            {"z": np.float32(0), "t": np.float32(2), "k": normal(3)},
        ),
        "encrypted indices of rows": (
            "b = Clip(h, z, t) i = Cast<to=7>(b) m = Gather(k, i)",
            {"z": np.float32(0), "t": np.float32(2), "k": normal(3, 2)},
        ),
    },
    "ScatterElements": one(
        "m = ScatterElements<axis=3>(h, i, u)",
        i=np.zeros((1, 1, 1, 1), INTS),
        u=np.ones((1, 1, 1, 1), np.float32),
    ),
    "OneHot": one(
        "b = Clip(h, z, t) i = Cast<to=7>(b) m = OneHot(i, d, v)",
        z=np.float32(0),
        t=np.float32(2),
        d=INTS(3),
        v=np.float32([0, 1]),
    ),
    "Reshape": one("m = Reshape(h, s)", s=INTS([0, 4, 8])),
    "Transpose": one("m = Transpose<perm=[0,2,3,1]>(h)"),
    "Unsqueeze": one("m = Unsqueeze(h, a)", a=INTS([2])),
    "Squeeze": one("u = Slice(h, s, e, a) m = Squeeze(u, a)", s=INTS([0]), e=INTS([1]), a=INTS([1])),
    "Expand": one("u = Unsqueeze(h, a) m = Expand(u, s)", a=INTS([2]), s=INTS([1, 2, 2, 4, 4])),
    "Tile": one("m = Tile(h, r)", r=INTS([1, 1, 2, 1])),
    "CenterCropPad": one("m = CenterCropPad<axes=[2,3]>(h, s)", s=INTS([2, 2])),
    "DepthToSpace": one("u = Concat<axis=1>(h, g) m = DepthToSpace<blocksize=2>(u)"),
    "SpaceToDepth": one("m = SpaceToDepth<blocksize=2>(h)"),
    "Resize": {
        "nearest": ("m = Resize(h, , s)", {"s": np.float32([1, 1, 2, 2])}),
        "linear": ('m = Resize<mode="linear">(h, , s)', {"s": np.float32([1, 1, 2, 2])}),
    },
    "QuantizeLinear": one(
        "q = QuantizeLinear(h, s, z) m = DequantizeLinear(q, s, z)", s=np.float32(0.1), z=np.uint8(128)
    ),
    "DequantizeLinear": one(
        "q = QuantizeLinear(h, s, z) m = DequantizeLinear(q, s, z)", s=np.float32(0.1), z=np.uint8(128)
    ),
    "Col2Im": one(
        "r = Reshape(h, s) m = Col2Im<strides=[2,2]>(r, i, b)",
        s=INTS([0, 8, 4]),
        i=INTS([4, 4]),
        b=INTS([2, 2]),
    ),
    "ArgMax": one("m = ArgMax<axis=1>(h)"),
    "ArgMin": one("m = ArgMin<axis=1>(h)"),
    "ReduceProd": one("m = ReduceProd(h, a)", a=INTS([3])),
    "Attention": one("m = Attention(h, h, h)"),
}
"""Calls by operator and case."""
