"""Load on a service: many clients with keys of their own, for some time.

    python benchmarks/load.py --clients 4 --seconds 300

It compiles ``examples/digits_mlp`` (or takes ``--circuit``), starts ``onnx-fhe serve``, and each client asks
again and again. It reports wrong answers (other predictions than those of the integer model), lost requests,
samples a second, answers of 429, the memory of the service's processes over time, and apart from each other
the processor time of the service and of its clients, which share the cores of this machine.

With ``--reference 40`` it runs so many samples before, in one process and without a service, as
``onnx-fhe run --jobs auto`` does, and says what share of that the service reached: in samples a second, which
whatever else runs on the machine changes, and in samples for each processor second, which it changes less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

import onnx_fhe
from onnx_fhe.ir.errors import OnnxFheError

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits_mlp"


def halves(circuit: Path | None, folder: Path) -> tuple[onnx_fhe.Program, Path, Path]:
    if circuit is None:
        program = onnx_fhe.compile(f"{DIGITS}.onnx", f"{DIGITS}.calibration.npz")
    else:
        program = onnx_fhe.Program.load(circuit)
    client, server = onnx_fhe.split(program)
    client.save(folder / "m.client")
    server.save(folder / "m.server")
    return program, folder / "m.client", folder / "m.server"


def start(server: Path, folder: Path, options: list[str]) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-W", "ignore", "-m", "onnx_fhe", "serve", str(server), "--no-tokens"]
    log = (folder / "log").open("w")
    more = ["--store", str(folder / "store"), "--port", "0", *options]
    process = subprocess.Popen(command + more, stderr=log, stdout=log, text=True)
    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        events = [json.loads(x) for x in (folder / "log").read_text().splitlines() if x.startswith("{")]
        if any(e["event"] == "worker ready" for e in events):
            return process, next(e["url"] for e in events if e["event"] == "listening")
        time.sleep(0.2)
    raise SystemExit((folder / "log").read_text())


def megabytes(process: subprocess.Popen[str]) -> float:
    """Memory of all processes of the service that no other shares."""
    top = psutil.Process(process.pid)
    return sum(p.memory_full_info().uss for p in (top, *top.children(recursive=True))) / 1e6


def processor_seconds(process: subprocess.Popen[str]) -> float:
    """Processor seconds of all processes of the service; those of a worker that ended are not counted."""
    top = psutil.Process(process.pid)
    times = [p.cpu_times() for p in (top, *top.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def reference(program: onnx_fhe.Program, inputs: np.ndarray, samples: int) -> tuple[float, float]:
    """Samples a second, and for each processor second, of one process without a service."""
    chosen = np.resize(inputs, (samples, *inputs.shape[1:]))
    # Keys are made and expanded before; a service does that once for each client.
    program.run(chosen[:1], "encrypted", jobs=1)
    began, spent = time.monotonic(), time.process_time()
    found = program.run(chosen, "encrypted", jobs="auto").evaluations
    each = samples / (time.process_time() - spent)
    print(
        f"run --jobs auto without a service: {found.throughput:.3f} samples a second"
        f" ({samples / (time.monotonic() - began):.3f} with encryption), {each:.3f} a processor second"
    )
    return found.throughput, each


class Clients:
    """Clients that ask until the time is over.

    Attributes:
        counts: What became of their requests.
        in_time: Samples that were answered until then; of a request that goes on longer, its share.
        errors: What lost requests were told.
    """

    def __init__(self, url: str, half: Path, inputs: np.ndarray, expected: np.ndarray, samples: int) -> None:
        self._url, self._half, self._inputs, self._expected = url, half, inputs, expected
        self._samples = samples
        self.counts: Counter[str] = Counter()
        self.in_time = 0.0
        self._lock = threading.Lock()
        self.errors: list[str] = []

    def make(self, count: int) -> list[onnx_fhe.RemoteProgram]:
        made = [onnx_fhe.RemoteProgram(self._url, self._half, patience=600) for _ in range(count)]
        for program in made:
            program.upload_keys()
        return made

    def ask(self, program: onnx_fhe.RemoteProgram, number: int, until: float) -> None:
        random = np.random.default_rng(number)
        while time.monotonic() < until:
            chosen = random.integers(0, len(self._inputs), self._samples)
            began = time.monotonic()
            try:
                found = program.run(self._inputs[chosen]).outputs
            except OnnxFheError as error:
                self.counts["lost requests"] += 1
                self.errors.append(str(error))
                continue
            (outputs,) = found.values()
            wrong = outputs.argmax(1) != self._expected[chosen]
            self.counts["requests"] += 1
            self.counts["samples"] += len(chosen)
            # Past the end fewer and fewer clients ask, which says nothing of a service that is busy.
            share = min(1.0, (until - began) / (time.monotonic() - began))
            with self._lock:
                self.in_time += len(chosen) * share
            self.counts["other predictions"] += int(wrong.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--circuit", type=Path, help="A circuit; by default digits_mlp is compiled.")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--samples", type=int, default=4, help="Samples of a request.")
    parser.add_argument(
        "--option", action="append", default=[], help="For onnx-fhe serve, such as --workers=1."
    )
    parser.add_argument(
        "--reference", type=int, default=0, metavar="N", help="Run N samples without a service before."
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program, client, server = halves(arguments.circuit, folder)
        inputs = np.load(f"{DIGITS}.test.npz")["input"]
        (outputs,) = program.run(inputs).outputs.values()
        alone = reference(program, inputs, arguments.reference) if arguments.reference else None
        process, url = start(server, folder, arguments.option)
        try:
            clients = Clients(url, client, inputs, outputs.argmax(1), arguments.samples)
            made = clients.make(arguments.clients)
            server_began, own_began = processor_seconds(process), time.process_time()
            began = time.monotonic()
            until = began + arguments.seconds
            threads = [threading.Thread(target=clients.ask, args=(p, i, until)) for i, p in enumerate(made)]
            for thread in threads:
                thread.start()
            held = []
            while any(t.is_alive() for t in threads):
                held.append((round(time.monotonic() - began), round(megabytes(process))))
                time.sleep(max(arguments.seconds / 12, 1))
            seconds = time.monotonic() - began
            server_spent = processor_seconds(process) - server_began
            own_spent = time.process_time() - own_began
        finally:
            process.terminate()
            process.wait(90)
        log = [json.loads(x) for x in (folder / "log").read_text().splitlines() if x.startswith("{")]
    statuses = Counter(
        e["status"] for e in log if e["event"] == "request" and e["route"].endswith("/evaluate")
    )
    ended = sum(e["event"] == "call lost" for e in log)
    print(f"{arguments.clients} clients, {arguments.samples} samples a request, {seconds:.0f} s")
    print(f"  {dict(clients.counts)}, calls lost with a worker {ended}")
    rate = clients.in_time / arguments.seconds
    print(f"  {rate:.3f} samples a second, answers {dict(statuses)}")
    each = clients.counts["samples"] / max(server_spent, 1e-9)
    print(f"  processor seconds: service {server_spent:.1f}, clients (and this measurement) {own_spent:.1f}")
    print(f"  {each:.3f} samples for each processor second of the service")
    if alone is not None:
        print(f"  {rate / alone[0]:.1%} of the samples a second without a service,")
        print(f"  {each / alone[1]:.1%} of the samples for each processor second")
    print(f"  memory by second, MB: {held}")
    for error in clients.errors[:3]:
        print(error)


if __name__ == "__main__":
    main()
