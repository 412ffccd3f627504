"""The demonstration of `make demo`: from a trained network to predictions on encrypted images.

It runs the commands that anyone would type, shows each of them, and sums up what they report.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = 3
ROOT = Path(__file__).resolve().parent.parent
SHADES = " .:-=+*#%@"


def onnx_fhe(*arguments: str) -> dict[str, Any]:
    """Run a command, show it and its progress, and return the object that its ``--json`` prints."""
    print(f"\n$ onnx-fhe {shlex.join(arguments)}", flush=True)
    # The command that was installed beside this interpreter, whether or not its environment is active.
    command = Path(sys.executable).parent / "onnx-fhe"
    done = subprocess.run([command, *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def draw(image: np.ndarray) -> list[str]:
    """An 8x8 image of values in 0..1 as rows of characters."""
    levels = (image.reshape(8, 8) * (len(SHADES) - 1)).round().astype(int)
    return ["".join(2 * SHADES[level] for level in row) for row in levels]


def main() -> None:
    """Compile, then run in the clear, simulated, and encrypted."""
    # Paths in the shown commands are relative, so that they can be typed as they stand.
    os.chdir(ROOT)
    build = Path("build")
    build.mkdir(exist_ok=True)
    circuit, test = str(build / "digits_mlp.fhe"), "examples/digits_mlp.test.npz"
    results = build / "demo.npz"
    started = time.perf_counter()

    compiled = onnx_fhe(
        "compile", "examples/digits_mlp.onnx", "--calibration", "examples/digits_mlp.calibration.npz",
        "--preset", "balanced", "-o", circuit,
    )  # fmt: skip
    print(
        f"  {compiled['programmable_bootstraps']} programmable bootstraps for each image, "
        f"tables of {compiled['max_table_bits']} bits, complexity {compiled['complexity'] / 1e9:.2f} G, "
        f"p_error {compiled['p_error']:g} for each lookup"
    )

    for mode, meaning in (
        ("clear", "the integer network, without noise"),
        ("simulate", "the circuit with the noise of encryption, simulated"),
    ):
        ran = onnx_fhe("run", circuit, "--data", test, "--mode", mode)
        print(f"  {meaning}: {100 * ran['accuracy']:.1f} % of {ran['samples']} images right")

    ran = onnx_fhe(
        "run", circuit, "--data", test, "--mode", "encrypted", "--limit", str(IMAGES), "-o", str(results)
    )  # fmt: skip
    data = np.load(test)
    predictions = np.load(results)["logits"].argmax(axis=1)
    drawings = [draw(image) for image in data["input"][:IMAGES]]
    print("\nWhat the client encrypted, and the digit that came back:\n")
    for rows in zip(*drawings, strict=True):
        print("    " + "    ".join(rows))
    print("    " + "    ".join(f"{f'a {p}, and it is a {label}':<16}"
          for p, label in zip(predictions, data["labels"][:IMAGES], strict=True)))  # fmt: skip
    print()
    show(ran["seconds_per_sample"])
    print(f"\nThe whole demonstration took {time.perf_counter() - started:.0f} s.")


def show(seconds: object) -> None:
    """Seconds of an encrypted run, part by part."""
    if isinstance(seconds, dict):
        for part, value in seconds.items():
            print(f"  {part:<10} {value:8.3f} s")
    else:
        print(f"  {seconds:.3f} s for each image")


if __name__ == "__main__":
    main()
