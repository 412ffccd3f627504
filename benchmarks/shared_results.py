"""What results that may be shared cost: one network by several pipelines, for the owner alone and for all.

    python benchmarks/shared_results.py FOLDER --models digits_mlp,mnist_mlp

The folder has NAME.onnx with NAME.calibration.npz and NAME.test.npz. Costs are predicted, for this machine.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path

import numpy as np

import onnx_fhe
from onnx_fhe.ir.results import Results
from onnx_fhe.machine import predict

TO_ROUNDED = "lower-to-integer,fuse-tlu,insert-rounding{bits=auto}"
PIPELINES: tuple[tuple[Results, str], ...] = (
    ("owner", "balanced"),
    ("shared", "balanced"),
    ("shared", f"normalize,quantize{{weights=3 activations=4 inputs=4}},{TO_ROUNDED}"),
    (
        "shared",
        "normalize,remove-neurons{ratio=0.8 tolerance=auto},quantize{weights=2 activations=3 inputs=3},"
        + TO_ROUNDED,
    ),
)
SIMULATED_SAMPLES = 1000
"""Test images that are simulated with errors; without errors they run in the clear."""


def row(model: Path, results: Results, pipeline: str) -> str:
    """A line of the table."""
    stem = model.with_suffix("")
    program = onnx_fhe.compile(
        model, f"{stem}.calibration.npz", pipeline, results=results, accept_loss=True, check_samples=0
    )
    given = np.load(f"{stem}.test.npz")
    data = {k: v for k, v in given.items() if k != "labels"}
    if results == "owner":
        outputs = program.simulate({k: v[:SIMULATED_SAMPLES] for k, v in data.items()}).outputs
    else:
        outputs = program.run(data).outputs  # errors are not met
    (scores,) = outputs.values()
    accuracy = (scores.argmax(1) == given["labels"][: len(scores)]).mean()
    found, price = program.manifest.statistics, predict(program.manifest.statistics, None)
    error = f"2^{math.log2(program.manifest.p_error or 1.0):.0f}"
    return (
        f"| {stem.name} | {results} | {pipeline} | {error} | {found.programmable_bootstraps} |"
        f" {found.complexity / 1e9:.1f} G | {price.seconds:.1f} | {price.key_bytes / 1e6:.0f} MB |"
        f" {accuracy:.1%} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="digits_mlp")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| network | results | pipeline | p_error | bootstraps | complexity | seconds | keys | accuracy |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in options.models.split(","):
        for results, pipeline in PIPELINES:
            print(row(options.folder / f"{name}.onnx", results, pipeline), flush=True)


if __name__ == "__main__":
    main()
