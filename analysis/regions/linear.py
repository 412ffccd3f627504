"""One view of the linear operators with constant weights: Gemm, MatMul and Conv."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from ...ir import runtime
from ...ir.graph import LINEAR, constant_of, is_constant
from ...ir.placement import is_kept_on_client

MAX_STATISTICS_ROWS = 20_000
"""Rows of the patch matrix kept for statistics: more do not change a second moment by much."""
_CHUNK_SAMPLES = 64
"""Most samples whose patches are made at once."""
_MAX_PATCH_ELEMENTS = 2**25
"""Elements of patches that are made at once; of large samples fewer are taken."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear operator in the canonical float form.

    Attributes:
        node: The Gemm (transB=1), MatMul (constant on the right) or Conv.
        source: Where its weight comes from: an initializer, or what a DequantizeLinear makes of one.
        shape: Shape of the weight as stored: (out, in) for Gemm, (in, out) for MatMul, (out, in/groups,
            *kernel) for Conv.
        groups: Convolution groups; 1 otherwise.
    """

    node: ir.Node
    source: ir.Value
    shape: tuple[int, ...]
    groups: int = 1

    @cached_property
    def weight(self) -> np.ndarray:
        """The weight as stored; only made where it is asked for, as a quantized one has to be computed."""
        found = stored_constant(self.source)
        assert found is not None
        return found

    @property
    def out_axis(self) -> int:
        """Axis of the output channels in the stored weight."""
        return 1 if self.node.op_type == "MatMul" else 0

    @property
    def channel_axis(self) -> int:
        """Axis of the output channels in the output tensor (negative for MatMul of any rank)."""
        return -1 if self.node.op_type == "MatMul" else 1

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self.shape[self.out_axis]

    @property
    def fan_in(self) -> int:
        """Number of inputs that one output sees."""
        return math.prod(self.shape) // max(1, self.channels)

    def matrix(self) -> np.ndarray:
        """The weight as (out, inputs that one output sees), float64."""
        stored = self.weight.T if self.node.op_type == "MatMul" else self.weight
        return stored.reshape(self.channels, -1).astype(np.float64)

    def stored(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of ``matrix``."""
        if self.node.op_type == "MatMul":
            return matrix.T.copy()
        return matrix.reshape(self.shape)

    def along_channels(self, vector: np.ndarray, rank: int) -> np.ndarray:
        """A vector over output channels, shaped to broadcast with the output tensor of that rank."""
        axis = self.channel_axis % rank
        return np.asarray(vector).reshape([-1 if i == axis else 1 for i in range(rank)])

    def rows(
        self, data: np.ndarray, *outputs: np.ndarray, seed: int = 0
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The input as rows that the weight matrix multiplies, and output tensors as the same rows.

        Convolution patches come from a depthwise convolution with one-hot kernels, run in onnxruntime, so
        that padding, strides and dilations mean here what they mean there. Where there are more than
        ``MAX_STATISTICS_ROWS`` rows a seeded choice of them is kept.

        Args:
            data: The input tensor of the operator, samples on axis 0.
            outputs: Tensors of the shape of the operator's output.
            seed: Seeds the choice of rows.

        Returns:
            One array (rows, in) for each group, and one array (rows, out) for each of ``outputs``.
        """
        random = np.random.default_rng(seed)
        if self.node.op_type != "Conv":
            flat = data.reshape(-1, data.shape[-1])
            kept = _choice(random, len(flat), MAX_STATISTICS_ROWS)
            return [flat[kept]], [o.reshape(-1, o.shape[-1])[kept] for o in outputs]
        inputs: list[list[np.ndarray]] = [[] for _ in range(self.groups)]
        results: list[list[np.ndarray]] = [[] for _ in outputs]
        share = max(16, MAX_STATISTICS_ROWS // len(data))
        places = int(np.prod(outputs[0].shape[2:])) if outputs else int(np.prod(data.shape[2:]))
        size = places * int(data.shape[1]) * int(np.prod(self.shape[2:]))
        step = max(1, min(_CHUNK_SAMPLES, _MAX_PATCH_ELEMENTS // max(1, size)))
        for start in range(0, len(data), step):
            chunk = slice(start, start + step)
            patches = self._patches(data[chunk])
            kept = _choice(random, len(patches), share * len(data[chunk]))
            for group, rows in enumerate(inputs):
                rows.append(patches[kept, group])
            for rows, output in zip(results, outputs, strict=True):
                rows.append(np.moveaxis(output[chunk], 1, -1).reshape(-1, self.channels)[kept])
        return [np.concatenate(r) for r in inputs], [np.concatenate(r) for r in results]

    def _patches(self, data: np.ndarray) -> np.ndarray:
        """(positions of all samples, groups, inputs that one output sees)."""
        channels, kernel = int(data.shape[1]), self.shape[2:]
        size = int(np.prod(kernel))
        one_hot = np.eye(size, dtype=np.float32).reshape(size, 1, *kernel)
        weight = ir.Value(
            name="w", const_value=ir.Tensor(np.tile(one_hot, (channels, *[1] * (len(kernel) + 1))))
        )
        x = ir.Value(name="x")
        kept = [v for k, v in self.node.attributes.items() if k not in {"group", "kernel_shape"}]
        node = ir.Node("", "Conv", [x, weight], [*kept, ir.AttrInt64("group", channels)])
        (patches,) = runtime.run_nodes([node], {x: data}, node.outputs, opset=13)
        return np.moveaxis(patches, 1, -1).reshape(-1, self.groups, channels // self.groups * size)

    def group_of(self, channel: int) -> int:
        """The convolution group of an output channel."""
        return channel * self.groups // self.channels


def linear_of(node: ir.Node) -> Linear | None:
    """The linear view of a node that may run encrypted; None if it is none or its weights are not constant.

    What was left to the client (``ir.placement``) is none: it bounds no encrypted part, and takes no scales.
    At the qdq level the weight is what its DequantizeLinear gives.
    """
    if is_kept_on_client(node):
        return None
    if node.domain != "" or node.op_type not in LINEAR or len(node.inputs) < 2:
        return None
    source = node.inputs[1]
    stored = _stored(source)
    if source is None or stored is None or stored.const_value is None:
        return None
    shape = tuple(map(int, stored.const_value.shape.dims))  # type: ignore[arg-type]
    if node.op_type == "MatMul" and len(shape) != 2:
        return None
    if node.op_type == "Gemm" and not is_canonical_gemm(node):
        return None
    groups = node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1
    return Linear(node, source, shape, groups or 1)


def is_canonical_gemm(node: ir.Node) -> bool:
    """Whether a Gemm is in the form that normalize leaves."""
    found = {a.name: a.value for a in node.attributes.values()}
    return (
        found.get("alpha", 1.0) == 1.0
        and found.get("beta", 1.0) == 1.0
        and not found.get("transA", 0)
        and found.get("transB", 0) == 1
    )


def stored_constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer, or what a DequantizeLinear makes of one; else None."""
    stored = _stored(value)
    if stored is None or stored is value:
        return constant_of(stored)
    assert value is not None
    (weight,) = runtime.run_nodes([n for n in [value.producer()] if n is not None], {}, [value], opset=21)
    return weight


def _stored(value: ir.Value | None) -> ir.Value | None:
    """The initializer that ``value`` is, or that a DequantizeLinear makes it of."""
    if is_constant(value):
        return value
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear" or not is_constant(producer.inputs[0]):
        return None
    return producer.inputs[0]


def _choice(random: np.random.Generator, total: int, keep: int) -> np.ndarray | slice:
    return slice(None) if total <= keep else np.sort(random.choice(total, keep, replace=False))
