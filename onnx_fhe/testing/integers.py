"""Building small integer-level models for tests; ranges are those that the samples really take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnx_fhe.ir import dialect, opsets, runtime
from onnx_fhe.ir.level import Level, set_level


class IntegerBuilder:
    """Builds a model node by node. Values are names; ``samples`` are the integers that are encrypted."""

    def __init__(self, seed: int = 0, samples: int = 20) -> None:
        self.rng = np.random.default_rng(seed)
        self.count = samples
        self.samples: dict[str, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.results: list[str] = []

    def constant(self, array: object, dtype: type = np.float32) -> str:
        """An initializer; returns its name."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def op(
        self, op_type: str, *inputs: str, name: str = "", domain: str = "", output: str = "", **kw: Any
    ) -> str:
        """A node; returns the name of its output."""
        output = output or f"v{len(self.nodes)}"
        name = name or f"/net/{op_type}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=name, domain=domain, **kw))
        return output

    def encrypt(self, name: str, shape: tuple[int, ...], low: int = 0, high: int = 7) -> str:
        """An input, and the Encrypt behind it, whose range is ``low`` to ``high``."""
        self.inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape]))
        data = self.rng.integers(low, high + 1, (self.count, *shape))
        self.samples[f"{name}_q"] = data
        return self.op(
            "Encrypt", name, domain=dialect.DOMAIN, output=f"{name}_q", name=f"e/{name}", low=low, high=high
        )

    def dense(self, x: str, units: int, limit: int = 3, name: str = "") -> str:
        """A Gemm with random integer weights of at most ``limit``."""
        width = self.run(x).shape[-1]
        weights = self.rng.integers(-limit, limit + 1, (units, width))
        return self.op("Gemm", x, self.constant(weights), transB=1, name=name)

    def conv(self, x: str, filters: int, kernel: tuple[int, ...], group: int = 1, **kw: Any) -> str:
        """A Conv with random integer weights."""
        channels = self.run(x).shape[1]
        weights = self.rng.integers(-2, 3, (filters, channels // group, *kernel))
        return self.op("Conv", x, self.constant(weights), group=group, **kw)

    def activate(
        self,
        x: str,
        keep: int | None = None,
        mode: str = "exact",
        shared: bool = False,
        low: int = 0,
        high: int = 7,
    ) -> str:
        """A random table for each channel, behind a rounding to ``keep`` bits where that is given."""
        found = self.run(x)
        axes = tuple(a for a in range(found.ndim) if shared or a != 1)
        least = np.atleast_1d(found.min(axis=axes).astype(np.int64))
        span = int((np.atleast_1d(found.max(axis=axes)) - least).max())
        first, size, step = least, span + 1, 1
        if keep is not None:
            removed = 0
            while (2**keep - 1) * 2**removed + max(0, 2**removed // 2 - 1) < span:
                removed += 1
            shape = [1] * found.ndim
            shape[1] = len(least)
            x = self.op("Add", x, self.constant(-least.reshape(shape)))
            first, size, step = np.zeros_like(least), 2**keep, 2**removed
            if removed:
                x = self.op("RoundBits", x, domain=dialect.DOMAIN, lsbs_to_remove=removed, mode=mode)
        table = self.rng.integers(low, high + 1, (len(first), size))
        return self.lookup(x, table, first, step)

    def lookup(self, x: str, table: object, first: object, step: int = 1, axis: int = 1) -> str:
        """A TableLookup; ``table`` is (channels, size), ``first`` (channels)."""
        return self.op(
            "TableLookup",
            x,
            self.constant(table),
            self.constant(first),
            domain=dialect.DOMAIN,
            step=step,
            axis=axis,
        )

    def decrypt(self, x: str, name: str = "y", low: int | None = None, high: int | None = None) -> str:
        """A Decrypt, by default with the range that the samples show, and an output."""
        found = self.run(x)
        low = int(found.min()) if low is None else low
        high = max(low + 1, int(found.max())) if high is None else high
        self.results.append(name)
        return self.op("Decrypt", x, domain=dialect.DOMAIN, output=name, name=f"d/{name}", low=low, high=high)

    def run(self, value: str) -> np.ndarray:
        """What ``value`` is on the samples."""
        given = {k.removesuffix("_q"): v.astype(np.float32) for k, v in self.samples.items()}
        return runtime.Session(self.proto([value])).run(given)[value]

    def proto(self, outputs: list[str]) -> onnx.ModelProto:
        """What was built, with these outputs."""
        infos = [onnx.helper.make_empty_tensor_value_info(n) for n in outputs]
        graph = helper.make_graph(self.nodes, "integers", self.inputs, infos, self.initializers)
        imports = [helper.make_opsetid("", opsets.target_opset()), helper.make_opsetid(dialect.DOMAIN, 1)]
        return dialect.attach(
            helper.make_model(graph, opset_imports=imports, ir_version=opsets.target_ir_version())
        )

    def model(self) -> ir.Model:
        """What was built, with shapes, as a model of the integer level."""
        inferred = onnx.shape_inference.infer_shapes(self.proto(self.results))
        model = ir.from_proto(inferred)
        dialect.strip(model)
        set_level(model, Level.INTEGER)
        return model

    def expected(self) -> Mapping[str, np.ndarray]:
        """The results on the samples, in onnxruntime."""
        return {n: self.run(n) for n in self.results}
