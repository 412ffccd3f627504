"""Large graphs: seconds against nodes, for each stage that reads or rewrites a model; and one wide network.

    python benchmarks/large.py [--nodes 500 1000 2000 4000 8000] [--plot large.png] [--resnet]

Everything here should grow linearly. ``--resnet`` also builds a network of the size of ResNet-18 with random
weights (11 M, 224x224 inputs) and times the float passes on it.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from onnx_fhe.inspection import inspect_model
from onnx_fhe.ir.load import load
from onnx_fhe.passes.analysis.regions import find_regions
from onnx_fhe.passes.base import Context
from onnx_fhe.passes.manager import PassManager

WIDTH = 4


def chain(count: int) -> onnx.ModelProto:
    """Dense layers and Relu one after the other, ``count`` nodes in all."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for i in range(count // 2):
        weight = np.eye(WIDTH) + rng.normal(size=(WIDTH, WIDTH)) / 100
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
        weights.append(numpy_helper.from_array(np.zeros(WIDTH, np.float32), f"b{i}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"g{i}"], f"dense{i}"))
        last = f"r{i}"
        nodes.append(helper.make_node("Relu", [f"g{i}"], [last], f"relu{i}"))
    nodes.append(helper.make_node("Gemm", [last, "w0", "b0"], ["y"], "last"))
    return _model(nodes, weights, ["N", WIDTH], ["N", WIDTH])


def resnet() -> onnx.ModelProto:
    """The shape of ResNet-18, with random weights and an average where it has a maximum."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def add(op: str, inputs: list[str], **attributes: object) -> str:
        name = f"{op}{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def constant(*shape: int, scale: float = 1.0, positive: bool = False) -> str:
        array = rng.normal(size=shape) * scale
        name = f"c{len(weights)}"
        array = np.abs(array) + 0.5 if positive else array
        weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(x: str, inner: int, outer: int, size: int, stride: int) -> str:
        weight = constant(outer, inner, size, size, scale=(2 / (inner * size * size)) ** 0.5)
        pads = [size // 2] * 4
        found = add("Conv", [x, weight], kernel_shape=[size, size], strides=[stride] * 2, pads=pads)
        statistics = [constant(outer, positive=i in (0, 3)) for i in range(4)]
        return add("BatchNormalization", [found, *statistics])

    x = add("Relu", [conv("x", 3, 64, 7, 2)])
    x = add("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
    channels = 64
    for outer in (64, 64, 128, 128, 256, 256, 512, 512):
        stride = 1 if outer == channels else 2
        inner = add("Relu", [conv(x, channels, outer, 3, stride)])
        short = x if stride == 1 else conv(x, channels, outer, 1, stride)
        x = add("Relu", [add("Add", [conv(inner, outer, outer, 3, 1), short])])
        channels = outer
    x = add("Flatten", [add("GlobalAveragePool", [x])])
    nodes.append(helper.make_node("Gemm", [x, constant(512, 1000, scale=0.05)], ["y"], "classifier"))
    return _model(nodes, weights, ["N", 3, 224, 224], ["N", 1000])


def _model(nodes: list, weights: list, x: list, y: list) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, y)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def stages(path: Path, calibration: dict[str, np.ndarray]) -> dict[str, float]:
    """Processor seconds of each stage."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        began = time.process_time()
        found = work()
        seconds[name] = time.process_time() - began
        print(f"  {name:<12} {seconds[name]:8.2f} s, {_memory():.1f} GB", flush=True)
        return found

    def run(pipeline: str, model: ir.Model) -> ir.Model:
        return PassManager.parse(pipeline).run(model, Context(calibration=calibration)).model

    model = timed("load", lambda: load(path))
    model = timed("normalize", lambda: run("normalize", model))
    timed("analyses", lambda: find_regions(model))
    timed("inspect", lambda: inspect_model(path))
    model = timed("quantize", lambda: run("quantize{weights=3 activations=3}", model))
    timed("lower", lambda: run("lower-to-integer,fuse-tlu", model))
    return seconds


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def plot(found: dict[int, dict[str, float]], file: Path) -> None:
    """The curve: nodes against seconds, a line for each stage."""
    import matplotlib.pyplot as plt

    for name in next(iter(found.values())):
        plt.loglog(list(found), [s[name] for s in found.values()], marker="o", label=name)
    plt.xlabel("nodes")
    plt.ylabel("seconds")
    plt.legend()
    plt.savefig(file, dpi=120)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="*", default=[500, 1000, 2000, 4000, 8000])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--resnet", action="store_true")
    given = parser.parse_args()
    rng, found = np.random.default_rng(1), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.onnx"
        for count in given.nodes:
            print(f"{count} nodes")
            onnx.save(chain(count), path)
            found[count] = stages(path, {"x": rng.normal(size=(64, WIDTH)).astype(np.float32)})
        if given.resnet:
            print("the size of ResNet-18")
            onnx.save(resnet(), path)
            stages(path, {"x": rng.normal(size=(64, 3, 224, 224)).astype(np.float32)})
    if given.plot and found:
        plot(found, given.plot)


if __name__ == "__main__":
    main()
