"""Families of features: each draws functions of the input by chance, from a seed, without any network.

A family's features come in an order in which fewer are the first of more, so that one look at many of them
tells how well each smaller number does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir import seeded
from ....ir.editing import GraphEditor
from ....ir.placement import keep_on_client
from .statistics import InputStatistics

PHASE_SPREAD = 20.0
"""Standard deviation of the phases of cosines: so many turns that the phase is as good as uniform."""


@dataclass(frozen=True)
class Family:
    """Some features.

    Attributes:
        name: ``inputs``, ``cosines``, ``convolutions`` or ``bins``.
        size: How many draws: cosines, filters, or bins of each feature. Of ``inputs`` there are none.
        scale: Cosines: turns, in radians, over the typical distance of two samples.
        kernel, grid: Convolutions: side of a filter, and of the grid that averages are taken over.
        pairs: Bins: whether products of two features' bins are among them.
        inputs: Whether the inputs themselves are features, too.
    """

    name: str
    size: int = 0
    scale: float = 0.0
    kernel: int = 0
    grid: int = 0
    pairs: bool = False
    inputs: bool = True

    def __str__(self) -> str:
        """A few words for a note."""
        if self.name == "cosines":
            return f"{self.size} random cosines"
        if self.name == "convolutions":
            side, grid = f"{self.kernel}x{self.kernel}", f"{self.grid}x{self.grid}"
            beside = ", beside the inputs" if self.inputs else ""
            return f"{self.size} random filters of {side}, averaged over {grid} places{beside}"
        if self.name == "bins":
            return f"{self.size} bins of each feature" + (" and products of two" if self.pairs else "")
        return "the inputs alone"


class FeatureWriter:
    """Writes the nodes that compute features, all of them the client's.

    Args:
        editor: Of the graph that they go into; its place is chosen.
        values: The graph inputs.
        known: What is known of them, in their order.
        distance: Typical distance of two samples, standardised.
        seed: Below 2^31.
    """

    def __init__(
        self,
        editor: GraphEditor,
        values: Sequence[ir.Value],
        known: Sequence[InputStatistics],
        distance: float,
        seed: int,
    ) -> None:
        self._editor, self._known, self._distance, self._seed = editor, known, distance, seed
        editor.model.opset_imports.setdefault(seeded.DOMAIN, 1)
        self._parts = [self._standardised(v, k) for v, k in zip(values, known, strict=True)]

    def write(self, family: Family, scales: Sequence[float]) -> ir.Value:
        """The features of a family, (samples, features), behind the standardised inputs where these are some.

        Args:
            family: What to draw.
            scales: What each tensor of features is divided by, for all of them share one quantizer.
        """
        found = [self._joined(self._parts)] if family.inputs else []
        found += [self._over(v, s) for v, s in zip(self._drawn(family), scales, strict=True)]
        return self._joined(found)

    def _drawn(self, family: Family) -> list[ir.Value]:
        if family.name == "cosines":
            return [self._cosines(family)]
        if family.name == "convolutions":
            return [
                self._convolutions(family, part, known.image, number)
                for number, (part, known) in enumerate(zip(self._parts, self._known, strict=True))
                if known.image is not None
            ]
        return [self._bins(family)] if family.name == "bins" else []

    def _add(self, op: str, inputs: Sequence[ir.Value | None], **attributes: object) -> ir.Value:
        value = self._editor.add(op, inputs, f"features/{op}", attributes)
        value.type = ir.TensorType(ir.DataType.BOOL if op == "Equal" else ir.DataType.FLOAT)
        node = value.producer()
        assert node is not None
        keep_on_client(node, public=True)
        return value

    def _constant(self, array: object, dtype: type = np.float32) -> ir.Value:
        return self._editor.constant("features/constant", np.asarray(array), dtype)

    def _normal(self, number: int, *shape: int) -> ir.Value:
        node = ir.Node(
            seeded.DOMAIN,
            seeded.OPERATOR,
            [],
            seeded.attributes(self._seed + number, [*shape]),
            num_outputs=1,
        )
        value = self._editor.insert(node, f"features/{seeded.OPERATOR}")
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        keep_on_client(node, public=True)
        return value

    def _standardised(self, value: ir.Value, known: InputStatistics) -> ir.Value:
        """(samples, width) of one input; see ``InputStatistics.standardised``."""
        if value.dtype is not ir.DataType.FLOAT:
            value = self._add("Cast", [value], to=int(ir.DataType.FLOAT))
        flat = self._add("Reshape", [value, self._constant([-1, known.elements], np.int64)])
        if known.categories:
            column = self._add("Unsqueeze", [flat, self._constant([2], np.int64)])
            hot = self._add("Equal", [column, self._constant(np.arange(known.categories))])
            number = self._add("Cast", [hot], to=int(ir.DataType.FLOAT))
            return self._add("Reshape", [number, self._constant([-1, known.width], np.int64)])
        centred = self._add("Sub", [flat, self._constant(known.mean)])
        return self._add("Div", [centred, self._constant(known.spread)])

    def _over(self, value: ir.Value, scale: float) -> ir.Value:
        return value if scale == 1.0 else self._add("Div", [value, self._constant([scale])])

    def _joined(self, values: Sequence[ir.Value]) -> ir.Value:
        return values[0] if len(values) == 1 else self._add("Concat", values, axis=1)

    def _cosines(self, family: Family) -> ir.Value:
        """cos(w x + b) with normal w: what they span approximates any smooth function.

        Rahimi and Recht, Random features for large-scale kernel machines, 2007.
        """
        width = sum(k.width for k in self._known)
        drawn = self._normal(0, family.size, width)
        directions = self._add("Mul", [drawn, self._constant([family.scale / self._distance])])
        columns = self._add("Transpose", [directions], perm=[1, 0])
        turned = self._add("MatMul", [self._joined(self._parts), columns])
        phases = self._add("Mul", [self._normal(1, family.size), self._constant([PHASE_SPREAD])])
        return self._add("Cos", [self._add("Add", [turned, phases])])

    def _convolutions(
        self, family: Family, part: ir.Value, image: tuple[int, int, int], number: int
    ) -> ir.Value:
        """Filters without a mean, rectified and averaged over a grid.

        After Coates, Lee and Ng, An analysis of single-layer networks in unsupervised feature learning, 2011,
        with random filters (Saxe et al., 2011).
        """
        channels, height, width = image
        plane = self._add("Reshape", [part, self._constant([-1, channels, height, width], np.int64)])
        axes = self._constant([1, 2, 3], np.int64)
        drawn = self._normal(2 + number, family.size, channels, family.kernel, family.kernel)
        centred = self._add("Sub", [drawn, self._add("ReduceMean", [drawn, axes], keepdims=1)])
        filters = self._add("Div", [centred, self._add("ReduceL2", [centred, axes], keepdims=1)])
        kernel = [family.kernel] * 2
        attributes = {"dilations": [1, 1], "group": 1, "kernel_shape": kernel, "strides": [1, 1]}
        seen = self._add("Conv", [plane, filters], pads=[family.kernel // 2] * 4, **attributes)
        side = [max(1, round(size / family.grid)) for size in (height, width)]
        bright = self._add("Relu", [seen])
        averaged = self._add("AveragePool", [bright], kernel_shape=side, strides=side, pads=[0] * 4)
        count = family.size * (height // side[0]) * (width // side[1])
        return self._add("Reshape", [averaged, self._constant([-1, count], np.int64)])

    def _bins(self, family: Family) -> ir.Value:
        """Triangles at even distances over each feature, two of which overlap everywhere, and products."""
        width = sum(k.width for k in self._known)
        flat = self._joined(self._parts)
        column = self._add("Unsqueeze", [flat, self._constant([2], np.int64)])
        centres = np.linspace(-2.0 / 3.0, 2.0 / 3.0, family.size)
        step = centres[1] - centres[0]
        inside = self._add("Clip", [column, self._constant(centres[0]), self._constant(centres[-1])])
        away = self._add("Abs", [self._add("Sub", [inside, self._constant(centres)])])
        near = self._add("Sub", [self._constant([1.0]), self._add("Div", [away, self._constant([step])])])
        bins = self._add("Relu", [near])
        found = [self._add("Reshape", [bins, self._constant([-1, width * family.size], np.int64)])]
        if family.pairs:
            for first in range(width):
                for second in range(first + 1, width):
                    found.append(self._products(bins, first, second, family.size))
        return self._joined(found)

    def _products(self, bins: ir.Value, first: int, second: int, size: int) -> ir.Value:
        one, other = (
            self._add("Gather", [bins, self._constant([i], np.int64)], axis=1) for i in (first, second)
        )
        column = self._add("Transpose", [one], perm=[0, 2, 1])
        return self._add(
            "Reshape", [self._add("Mul", [column, other]), self._constant([-1, size * size], np.int64)]
        )
