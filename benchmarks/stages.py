"""The stages of public FHE benchmarks for ML inference, each a process of its own with files between them.

    python benchmarks/stages.py NAME.onnx --folder build/stages --simulated
    python benchmarks/stages.py CIRCUIT.fhe --data NAME.test.npz --folder build/stages --simulated

A network is compiled first, on ``NAME.calibration.npz`` beside it, and ``NAME.test.npz`` is its data.
Key generation, preprocessing (quantizing), encryption, encrypted computation, decryption and postprocessing
run in that order. Key generation and encrypted computation are the commands ``keygen`` and ``evaluate``; the
others are this script with ``--stage``. Seconds are those of a whole process, with starting Python and
reading its files; of encrypted computation also those of one sample, as ``evaluate`` measures them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np

STAGES = (
    "key generation",
    "preprocessing",
    "encryption",
    "encrypted computation",
    "decryption",
    "postprocessing",
)
PUBLISHED = {
    "network": "MNIST MLP 784-128-64-10, OpenFHE, CKKS",
    "encrypted computation": 13.3,
    "key bytes": 1_400_000_000,
    "input bytes": 359_000,
    "result bytes": 70_000,
}
"""Seconds, and bytes of one sample, that the reference implementation of the public benchmark states."""


class Files:
    """Where the stages leave what the next one takes."""

    def __init__(self, folder: Path) -> None:
        self.client, self.server = folder / "model.client", folder / "model.server"
        self.secret, self.keys = folder / "secret", folder / "evaluation.keys"
        self.quantized, self.inputs = folder / "quantized.npz", folder / "inputs.enc"
        self.results, self.integers = folder / "results.enc", folder / "integers.npz"
        self.outputs = folder / "outputs.npz"


def stage(name: str, files: Files, data: Path, samples: int) -> None:
    """Run one of the stages that are no command, in this process."""
    from onnx_fhe.sides.ciphertexts import Ciphertexts, EncryptedResults
    from onnx_fhe.sides.client import Client

    client = Client.load(files.client)
    if name == "preprocessing":
        inputs = {k: v[:samples] for k, v in np.load(data).items() if k != "labels"}
        np.savez(files.quantized, **client.quantize(inputs))
    elif name == "encryption":
        client.load_keys(files.secret)
        client.encrypt_quantized(dict(np.load(files.quantized))).save(files.inputs)
    elif name == "decryption":
        client.load_keys(files.secret)
        asked = Ciphertexts.load(files.inputs)
        np.savez(files.integers, **client.decrypt_quantized(EncryptedResults.load(files.results), asked))
    else:
        np.savez(files.outputs, **client.outputs_of(dict(np.load(files.integers))))


def measure(circuit: Path, data: Path, samples: int, folder: Path, jobs: str = "1") -> dict[str, Any]:
    """Run all stages; seconds and bytes of each, and the share of right answers."""
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(folder)
    _run(["split", circuit, "-o", folder / "model"])
    commands: dict[str, list[Any]] = {
        "key generation": ["keygen", files.client, "--keys", files.secret, "-o", files.keys, "--force"],
        "encrypted computation": [
            *("evaluate", files.server, files.inputs, "--evaluation-keys", files.keys),
            *("-o", files.results, "--jobs", jobs, "--json"),
        ],
    }
    made = {
        "key generation": files.keys,
        "preprocessing": files.quantized,
        "encryption": files.inputs,
        "encrypted computation": files.results,
        "decryption": files.integers,
        "postprocessing": files.outputs,
    }
    found: dict[str, Any] = {"samples": samples, "stages": {}, "machine": machine.describe()}
    for name in STAGES:
        began = time.perf_counter()
        if name in commands:
            told = _run(commands[name])
        else:
            own = [circuit, "--data", data, "--samples", samples, "--folder", folder, "--stage", name]
            told = _process([__file__, *own])
        seconds = time.perf_counter() - began
        found["stages"][name] = {"seconds": seconds, "bytes": made[name].stat().st_size}
        if name == "encrypted computation":
            took = json.loads(told)
            found["seconds a sample"] = {k: took[k] for k in ("latency", "first", "samples_per_second")}
    scores = next(iter(np.load(files.outputs).values()))
    labels = np.load(data)["labels"][:samples]
    found["load after"] = round(os.getloadavg()[0], 2)
    found["right"] = int((scores.argmax(axis=1) == labels).sum())
    return found


def compiled(network: Path, folder: Path, preset: str, p_error: float) -> Path:
    """The circuit of a network, which is compiled on its calibration data."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{network.stem}.fhe"
    calibration = network.with_suffix(".calibration.npz")
    options = ["--preset", preset, "--p-error", p_error, "--self-test", 0]
    print(_run(["compile", network, "--calibration", calibration, *options, "-o", made]))
    return made


def simulated(circuit: Path, data: Path, network: Path | None = None) -> dict[str, float]:
    """Accuracy on all data with the errors of encryption simulated, and that of the network, if given."""
    beside = [] if network is None else ["--model", network]
    told = json.loads(_run(["run", circuit, "--data", data, "--mode", "simulate", *beside, "--json"]))
    found = {"simulated accuracy": float(told["accuracy"])}
    if network is not None:
        found["float accuracy"] = float(told["network"]["accuracy"])
    return found


def show(found: dict[str, Any]) -> None:
    """Print the figures, and the published ones beside them."""
    samples = found["samples"]
    print(f"{samples} samples; reference: {PUBLISHED['network']}\n")
    print("| stage | seconds | bytes written |\n| --- | --- | --- |")
    for name, taken in found["stages"].items():
        print(f"| {name} | {taken['seconds']:.2f} | {taken['bytes']:,} |")
    sizes = {
        k: found["stages"][k]["bytes"] for k in ("key generation", "encryption", "encrypted computation")
    }
    rows = (
        ("encrypted computation, s a sample", f"{found['seconds a sample']['latency']:.2f}", "13.3"),
        ("evaluation keys, bytes", f"{sizes['key generation']:,}", f"{PUBLISHED['key bytes']:,}"),
        ("input, bytes a sample", f"{sizes['encryption'] // samples:,}", f"{PUBLISHED['input bytes']:,}"),
        (
            "result, bytes a sample",
            f"{sizes['encrypted computation'] // samples:,}",
            f"{PUBLISHED['result bytes']:,}",
        ),
    )
    print("\n| | here | reference |\n| --- | --- | --- |")
    for what, here, there in rows:
        print(f"| {what} | {here} | {there} |")
    print(f"\n{found['right']} of {samples} encrypted samples are classified right.")
    if "simulated accuracy" in found:
        beside = f", float {found['float accuracy']:.1%}" if "float accuracy" in found else ""
        print(f"Simulated accuracy on all data: {found['simulated accuracy']:.1%}{beside}.")
    began = found["machine"]
    print(f"Load of {began['cores']} cores: {began['load']} at the start, {found['load after']} at the end.")


def _run(command: list[Any]) -> str:
    return _process(["-m", "onnx_fhe", *command])


def _process(arguments: list[Any]) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"a stage ended with status {done.returncode}")
    return done.stdout


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("circuit", type=Path, help="what `onnx-fhe compile` wrote, or a network (.onnx)")
    parser.add_argument("--data", type=Path, help=".npz of inputs and 'labels'; a network's own by default")
    parser.add_argument("--preset", default="fast", help="that a network is compiled with")
    parser.add_argument("--p-error", type=float, default=0.01, help="of a lookup, where it is compiled")
    parser.add_argument("--samples", type=int, default=5, help="samples on ciphertexts")
    parser.add_argument("--folder", type=Path, required=True, help="for the files between the stages")
    parser.add_argument("--jobs", default="1", help="of `evaluate`")
    parser.add_argument("--simulated", action="store_true", help="score all data, simulated")
    parser.add_argument("--json", type=Path, help="write all figures")
    parser.add_argument("--stage", choices=STAGES, help="run this stage alone, in this process")
    given = parser.parse_args(arguments)
    if given.stage:
        stage(given.stage, Files(given.folder), given.data, given.samples)
        return
    circuit, network, data = given.circuit, None, given.data
    if circuit.suffix == ".onnx":
        network, data = circuit, data or circuit.with_suffix(".test.npz")
        circuit = compiled(network, given.folder, given.preset, given.p_error)
    elif data is None:
        parser.error("a circuit needs --data")
    found = measure(circuit, data, given.samples, given.folder, given.jobs)
    if given.simulated:
        found |= simulated(circuit, data, network)
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
