"""Large networks: seconds against nodes for loading, inspecting and every pass; and one wide network.

    python benchmarks/large.py                                  # chains of 500 to 8000 nodes
    python benchmarks/large.py --nodes --inspect 10000          # what `inspect` takes
    python benchmarks/large.py --nodes --resnet                 # the size of ResNet-18, 64 images
    python benchmarks/large.py --plot large.png --json large.json

Everything here should grow linearly. Memory is the most that was resident while a stage ran. ``--resnet``
builds a network of the size of ResNet-18 with random weights (11 M, 224x224 inputs) and runs every pass of a
pipeline on it. Nothing is compiled.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx_ir.passes import PassBase

from onnx_fhe.inspection import inspect_model
from onnx_fhe.ir.load import load
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.instruments import Instrument
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.passes.framework.pipeline import pass_name

WIDTH, IMAGES = 4, 64


@dataclass(frozen=True)
class Spent:
    """What one stage took.

    Attributes:
        seconds: Of the processor.
        wall: Seconds that passed.
        peak: Most memory that was resident meanwhile, in bytes (where the system tells).
    """

    seconds: float
    wall: float
    peak: int


class Meter:
    """Measures what runs between ``start`` and ``stop``."""

    def start(self) -> None:
        """Begin; the peak of memory so far is forgotten."""
        if (clear := Path("/proc/self/clear_refs")).exists():
            clear.write_text("5")
        self._began = time.process_time(), time.perf_counter()

    def stop(self) -> Spent:
        """What was spent since."""
        seconds, wall = time.process_time() - self._began[0], time.perf_counter() - self._began[1]
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        peaks = [int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM")]
        return Spent(seconds, wall, peaks[0] if peaks else 0)


class Meters(Instrument):
    """Measures every pass; a pass that comes twice counts together."""

    def __init__(self, spent: dict[str, Spent]) -> None:
        self.spent = spent
        self._meter = Meter()

    def before_pass(self, pass_: PassBase, model: ir.Model) -> None:  # noqa: ARG002
        """Begin."""
        self._meter.start()

    def after_pass(self, pass_: PassBase, model: ir.Model, modified: bool) -> None:  # noqa: ARG002
        """Note what was spent."""
        found = self._meter.stop()
        note(pass_name(pass_), found, self.spent)


def note(name: str, found: Spent, spent: dict[str, Spent]) -> None:
    """Print what a stage took, and add it up."""
    print(f"  {name:<24} {found.seconds:8.2f} s {found.wall:8.2f} s {found.peak / 2**30:6.2f} GB", flush=True)
    before = spent.get(name, Spent(0.0, 0.0, 0))
    spent[name] = Spent(
        before.seconds + found.seconds, before.wall + found.wall, max(before.peak, found.peak)
    )


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


def only_dense(count: int) -> onnx.ModelProto:
    """Dense layers one after the other."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for i in range(count):
        weight = np.eye(WIDTH) + rng.normal(size=(WIDTH, WIDTH)) / 100
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
        weights.append(numpy_helper.from_array(np.zeros(WIDTH, np.float32), f"b{i}"))
        output = "y" if i == count - 1 else f"g{i}"
        nodes.append(
            helper.make_node("Gemm", [f"g{i - 1}" if i else "x", f"w{i}", f"b{i}"], [output], f"dense{i}")
        )
    return _model(nodes, weights, ["N", WIDTH], ["N", WIDTH])


def only_relu(count: int) -> onnx.ModelProto:
    """Relu one after the other."""
    names = ["x", *(f"r{i}" for i in range(count - 1)), "y"]
    nodes = [helper.make_node("Relu", [a], [b], f"relu_{b}") for a, b in pairwise(names)]
    return _model(nodes, [], ["N", WIDTH], ["N", WIDTH])


GRAPHS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "Gemm": only_dense,
    "Relu": only_relu,
    "Gemm and Relu": chain,
}


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


def images(rng: np.random.Generator) -> np.ndarray:
    """Patches of colour, dark and bright: of mere noise a network of random weights tells none apart."""
    patches = rng.normal(size=(IMAGES, 3, 7, 7)) * rng.uniform(0.2, 2.0, (IMAGES, 1, 1, 1))
    fine = rng.normal(size=(IMAGES, 3, 224, 224)) / 10
    return (patches.repeat(32, axis=2).repeat(32, axis=3) + fine).astype(np.float32)


def _model(nodes: list, weights: list, x: list, y: list) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, y)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def stages(path: Path, calibration: dict[str, np.ndarray], pipeline: str) -> dict[str, Spent]:
    """What loading, inspecting and each pass of a pipeline take."""
    spent: dict[str, Spent] = {}
    meter = Meter()

    def timed(name: str, work: Callable[[], object]) -> object:
        meter.start()
        found = work()
        note(name, meter.stop(), spent)
        return found

    print(f"  {'':<24} {'processor':>10} {'wall':>10} {'peak':>9}")
    timed("inspect", lambda: inspect_model(path))
    model = timed("load", lambda: load(path))
    context = Context(calibration=calibration, progress=_progress)
    result = PassManager.parse(pipeline, [Meters(spent)]).run(model, context)
    for note in result.context.notes:
        print(f"  note: {note}")
    print(f"  all passes: {sum(s.seconds for n, s in spent.items() if n not in ('inspect', 'load')):.0f} s")
    return spent


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r  {what} {done}/{total}\033[K", end="\r", file=sys.stderr)


def plot(found: dict[int, dict[str, Spent]], file: Path) -> None:
    """The curve: nodes against seconds, a line for each stage that takes a tenth of a second anywhere."""
    import matplotlib.pyplot as plt

    for name in next(iter(found.values())):
        seconds = [s[name].seconds for s in found.values()]
        if max(seconds) > 0.1:
            plt.loglog(list(found), seconds, marker="o", label=name)
    plt.xlabel("nodes")
    plt.ylabel("processor seconds")
    plt.legend(fontsize="small")
    plt.savefig(file, dpi=120)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="*", default=[500, 1000, 2000, 4000, 8000])
    parser.add_argument(
        "--inspect", type=int, nargs="*", default=[], help="only inspect graphs of so many nodes"
    )
    parser.add_argument("--pipeline", default="balanced")
    parser.add_argument("--resnet", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    found: dict[int, dict[str, Spent]] = {}
    records: dict[str, dict[str, Spent]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.onnx"
        for count in given.inspect:
            for kind in GRAPHS:
                onnx.save(GRAPHS[kind](count), path)
                meter = Meter()
                meter.start()
                inspect_model(path)
                note(f"inspect {count} {kind}", meter.stop(), records.setdefault("inspect", {}))
        for count in given.nodes:
            print(f"{count} nodes")
            onnx.save(chain(count), path)
            data = {"x": rng.normal(size=(IMAGES, WIDTH)).astype(np.float32)}
            found[count] = records[str(count)] = stages(path, data, given.pipeline)
        if given.resnet:
            print("the size of ResNet-18")
            onnx.save(resnet(), path)
            data = {"x": images(rng)}
            records["resnet"] = stages(path, data, given.pipeline)
    if given.plot and found:
        plot(found, given.plot)
    if given.json:
        plain = {k: {n: vars(s) for n, s in v.items()} for k, v in records.items()}
        given.json.write_text(json.dumps(plain, indent=2) + "\n")


if __name__ == "__main__":
    main()
