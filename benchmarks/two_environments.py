"""A client and a server, each in a virtual environment of its own, with files between them and over HTTP.

It builds the wheel and makes two environments: the lean ones of requirements/, or with --full what pip
makes of the extras. Keys, encryption and decryption are the first one's, the encrypted computation is the
second one's. The predictions are compared with those of one process. It needs an index of packages for pip,
and some minutes.

    python benchmarks/two_environments.py
    python benchmarks/two_environments.py --full --samples 20
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
# What each side is not to have: the other side's packages, and the compiler's.
ABSENT = {
    "client": ("onnx", "onnx_ir", "onnxscript", "fastapi", "uvicorn", "pebble", "prometheus_client"),
    "server": ("onnx", "onnx_ir", "onnxscript", "onnxruntime", "httpx"),
}
UNNEEDED = ("torch", "scipy", "z3", "networkx")


class Side:
    """A virtual environment, and a folder with nothing but the files of one side."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.files, self.environment = name, folder / f"{name}-files", folder / f"{name}-env"
        self.files.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.environment], check=True)
        self.python = self.environment / "bin" / "python"

    def install(self, wheel: Path, full: bool) -> None:
        """Install the wheel, with its extra or with the lean list of its side."""
        pip = [*PIP, "--python", str(self.python), "install", "-c", str(ROOT / "constraints.txt")]
        if full:
            subprocess.run([*pip, f"onnx-fhe[{self.name}] @ {wheel.as_uri()}"], check=True)
            return
        lean = ROOT / "requirements" / f"{self.name}-lean.txt"
        subprocess.run([*pip, "--no-deps", "-r", str(lean)], check=True)
        subprocess.run([*pip, "--no-deps", str(wheel)], check=True)

    def require_absent(self, modules: tuple[str, ...]) -> None:
        """Stop where a module is installed that has no business here."""
        code = f"import importlib.util as u; print([m for m in {modules!r} if u.find_spec(m)])"
        found = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True).stdout
        if found.strip() != "[]":
            raise SystemExit(f"{self.name}: {found.strip()} should not be installed")

    def run(self, *command: str) -> float:
        """Run a command of onnx-fhe in the folder of the side; seconds that it took."""
        began = time.perf_counter()
        program = self.environment / "bin" / "onnx-fhe"
        subprocess.run([program, *command], cwd=self.files, check=True, env=_environment())
        return time.perf_counter() - began

    def size(self) -> float:
        """Bytes on disk of the environment."""
        done = subprocess.run(["du", "-sb", self.environment], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[0])


def _environment() -> dict[str, str]:
    """Nothing of the repository on Python's path."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def wheel_in(folder: Path) -> Path:
    """The wheel of the files that are committed, so that nothing else of the tree gets in."""
    source = folder / "source"
    source.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "x", "-C", source], input=archive, check=True)
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(build, check=True)
    return next(folder.glob("onnx_fhe-*.whl"))


def compiled(folder: Path, samples: int) -> tuple[Path, np.ndarray]:
    """A folder with the two halves and the data, and the predictions of one process on ciphertexts."""
    import onnx_fhe

    examples, made = ROOT / "examples", folder / "made"
    made.mkdir()
    program = onnx_fhe.compile(examples / "digits_mlp.onnx", examples / "digits_mlp.calibration.npz")
    for side, half in zip(("client", "server"), onnx_fhe.split(program), strict=True):
        half.save(made / f"model.{side}")
    given = np.load(examples / "digits_mlp.test.npz")
    data = {"input": given["input"][:samples]}
    np.savez(made / "x.npz", **data)
    (outputs,) = program.encrypted(data).outputs.values()
    (clear,) = program.run(data).outputs.values()
    print(f"in one process, ciphertexts against the clear: {_equal(outputs, clear)}", flush=True)
    return made, outputs


def _equal(one: np.ndarray, other: np.ndarray) -> str:
    same = int((one.argmax(1) == other.argmax(1)).sum())
    return f"{same} of {len(one)} predictions equal"


def main() -> None:
    """Run it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="what pip makes of the extras, with torch")
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onnx-fhe-two-") as temporary:
        folder = Path(temporary)
        wheel = wheel_in(folder)
        client, server = Side("client", folder), Side("server", folder)
        for side in (client, server):
            side.install(wheel, options.full)
            side.require_absent((*ABSENT[side.name], *(() if options.full else UNNEEDED)))
            print(f"{side.name}: {side.size() / 1e6:.0f} MB installed", flush=True)
        made, expected = compiled(folder, options.samples)
        for name in ("model.client", "x.npz"):
            shutil.move(made / name, client.files)
        shutil.move(made / "model.server", server.files)
        seconds = {"keygen": client.run("keygen", "model.client", "--keys", "keys", "-o", "e.keys")}
        given = ("--keys", "keys", "--data", "x.npz")
        seconds["encrypt"] = client.run("encrypt", "model.client", *given, "-o", "in.enc")
        for name in ("e.keys", "in.enc"):
            shutil.move(client.files / name, server.files)
        asked = ("evaluate", "model.server", "in.enc", "--evaluation-keys", "e.keys", "-o", "out.enc")
        seconds["evaluate"] = server.run(*asked)
        shutil.move(server.files / "out.enc", client.files)
        answer = ("decrypt", "model.client", "out.enc", "--keys", "keys", "-o", "y.npz")
        seconds["decrypt"] = client.run(*answer)
        (outputs,) = np.load(client.files / "y.npz").values()
        print(", ".join(f"{name} {s:.1f} s" for name, s in seconds.items()))
        served = over_http(client, server)
    found = {"files between them": outputs, "over HTTP": served}
    for way, one in found.items():
        print(f"two environments, {way}, against one process: {_equal(one, expected)}")
    if any((one.argmax(1) != expected.argmax(1)).any() for one in found.values()):
        raise SystemExit(1)


def over_http(client: Side, server: Side) -> np.ndarray:
    """The outputs of the same samples, asked of a service that the server's environment runs."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    program = server.environment / "bin" / "onnx-fhe"
    line = [program, "serve", "model.server", "--store", "store", "--no-tokens", "--port", str(port)]
    service = subprocess.Popen(line, cwd=server.files, env=_environment(), stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        given = ("--half", "model.client", "--keys", "keys", "--data", "x.npz", "-o", "served.npz")
        print(f"over HTTP {client.run('ask', url, *given):.1f} s", flush=True)
    finally:
        service.terminate()
        service.wait(120)
    (outputs,) = np.load(client.files / "served.npz").values()
    return np.asarray(outputs)


if __name__ == "__main__":
    main()
