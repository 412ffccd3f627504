"""Features on the client beside preset fast: accuracy, bootstraps, upload and seconds on ciphertexts.

    python benchmarks/placements.py FOLDER --models digits_mlp,digits_cnn,checker_mlp_30,mnist_mlp

The folder has NAME.onnx with NAME.calibration.npz and NAME.test.npz (labels for accuracy). Both circuits of a
network are compiled and then run on the same samples in turns, so that a machine that is busy is so for both.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np

import onnx_fhe
from onnx_fhe.client_share import ClientComputes

SAMPLES = 5
"""Samples of the test data that are encrypted, one at a time."""


class Compiled:
    """One circuit of a network, and what was measured of it.

    Args:
        model: The ONNX file.
        pipeline: Name of a preset.
        client: What the client computes.
    """

    def __init__(self, model: Path, pipeline: str, client: ClientComputes) -> None:
        began = time.perf_counter()
        stem = model.with_suffix("")
        self.label = f"{pipeline}, client {client}"
        self.program = onnx_fhe.compile(
            model, f"{stem}.calibration.npz", pipeline, client=client, accept_loss=True, check_samples=0
        )
        self.compiled = time.perf_counter() - began
        given = dict(np.load(f"{stem}.test.npz"))
        self.labels = given.pop("labels")
        self.data = given
        (scores,) = self.program.simulate(given).outputs.values()
        self.accuracy = float((scores.argmax(axis=1) == self.labels).mean())
        self.seconds: list[float] = []
        self.right = 0

    def step(self, index: int) -> None:
        """Compute one sample on ciphertexts."""
        one = {name: array[index : index + 1] for name, array in self.data.items()}
        began = time.perf_counter()
        (scores,) = self.program.encrypted(one).outputs.values()
        self.seconds.append(time.perf_counter() - began)
        self.right += int(scores.argmax() == self.labels[index])

    def row(self, name: str, other: float) -> str:
        """A line of the table; ``other``: the seconds to compare with."""
        found, seconds = self.program.manifest.statistics, float(np.median(self.seconds[1:]))
        share = f"1/{other / seconds:.1f}"
        return (
            f"| {name} | {self.label} | {self.accuracy:.1%} | {found.programmable_bootstraps} |"
            f" {found.input_bytes / 1e3:.0f} kB | {self.compiled:.0f} | {seconds:.3f} | {share} |"
            f" {self.right} of {len(self.seconds)} |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="digits_mlp")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| network | pipeline | accuracy | bootstraps | input | compiled, s | seconds | of fast | right |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.models.split(","):
        path = options.folder / f"{name}.onnx"
        several = [Compiled(path, "fast", "inputs"), Compiled(path, "balanced", "features")]
        for index in range(SAMPLES):
            for one in several:
                one.step(index)  # the first of each makes its keys
        for one in several:
            print(one.row(name, float(np.median(several[0].seconds[1:]))), flush=True)


if __name__ == "__main__":
    main()
