"""Random networks for hours: float, integer model, circuit and ciphertexts compared, and outcomes counted.

    python benchmarks/soak.py FOLDER --hours 8
    python benchmarks/soak.py FOLDER --networks 300 --presets balanced,accurate --backend concrete
    python benchmarks/soak.py FOLDER --networks 100 --backend concrete --encrypted 50 --longest 2

FOLDER gets `outcomes.jsonl` (a line for each network, as it is done), `figures.json` and `figures.md`. Run
again with the same folder it goes on where it stopped. The exit status is 1 where a network was wrong without
a warning, or met a defect: `--first SEED --networks 1` with another folder has it again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import machine

from onnx_fhe.cli.output import plain
from onnx_fhe.ir.paths import write_bytes
from onnx_fhe.testing import check_network, random_network

CATEGORIES = ("good", "warned", "refused", "wrong", "defect")
FINDS = ("wrong", "defect")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check networks until time, or their number, is up; 0 when none was a find."""
    given = _parser().parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    known = _known(given.folder)
    lasts = given.seconds or 3600 * (given.hours or 0)
    ends = time.monotonic() + lasts if lasts else None
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), _stop)
    todo = _todo(given, known)
    began = time.monotonic()
    try:
        for done, (seed, preset) in enumerate(todo):
            if ends is not None and time.monotonic() >= ends:
                break
            _tell(known, done, seed, preset, time.monotonic() - began)
            _record(given.folder, known, _checked(given, seed, preset))
    except KeyboardInterrupt:
        (given.folder / "running.json").unlink(missing_ok=True)
    _tell(known)
    figures = figures_of(known)
    command = shlex.join(["python", "benchmarks/soak.py", *(arguments or sys.argv[1:])])
    report = {**machine.describe(), "command": command, **figures}
    write_bytes(given.folder / "figures.json", (json.dumps(report, indent=2) + "\n").encode())
    write_bytes(given.folder / "figures.md", to_markdown(figures).encode())
    print(to_markdown(figures), end="")
    return int(any(row["category"] in FINDS for row in known))


def figures_of(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts by pipeline and backend, and what was found."""
    rows = []
    for key in sorted({(o["pipeline"], o["backend"]) for o in outcomes}):
        these = [o for o in outcomes if (o["pipeline"], o["backend"]) == key]
        worst = sorted(o["worst"] for o in these if o.get("worst") is not None)
        ran = [o["encrypted"] for o in these if o.get("encrypted")]
        rows.append(
            {
                "pipeline": key[0],
                "backend": key[1],
                "networks": len(these),
                **{c: sum(o["category"] == c for o in these) for c in CATEGORIES},
                "median R^2 of the worst output": worst[len(worst) // 2] if worst else None,
                "samples with overflow": _mean([o["overflows"] for o in these if o.get("worst") is not None]),
                "samples on ciphertexts": sum(e["samples"] for e in ran),
                "circuits on ciphertexts": len(ran),
                "differing": sum(e["differing"] for e in ran),
                "explained by noise": round(sum(e["expected"] for e in ran), 1),
                "further off": sum(e["far"] for e in ran),
                "seconds a network": _mean([o["seconds"] for o in these]),
            }
        )
    refusals = Counter(o["what"].splitlines()[0] for o in outcomes if o["category"] == "refused")
    finds = [o for o in outcomes if o["category"] in FINDS]
    return {"rows": rows, "refusals": dict(refusals.most_common()), "finds": finds}


def to_markdown(figures: dict[str, Any]) -> str:
    """The figures as tables."""
    if not figures["rows"]:
        return "no networks\n"
    names = list(figures["rows"][0])
    lines = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    lines += ["| " + " | ".join(str(row[n]) for n in names) + " |" for row in figures["rows"]]
    if figures["refusals"]:
        lines += ["", "| refused because | networks |", "| --- | --- |"]
        lines += [f"| {what} | {n} |" for what, n in figures["refusals"].items()]
    if figures["finds"]:
        lines += ["", "| find | seed | pipeline | what |", "| --- | --- | --- | --- |"]
        for o in figures["finds"]:
            told = " ".join(o["what"].split())[:160].replace("|", "/")
            lines.append(f"| {o['category']} | {o['seed']} | {o['pipeline']} | {told} |")
    return "\n".join(lines) + "\n"


def _todo(given: argparse.Namespace, known: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    done = {(o["seed"], o["pipeline"], o["backend"]) for o in known}
    presets = given.presets.split(",") if given.pipeline is None else [given.pipeline]
    seeds = count(given.first) if given.networks is None else range(given.first, given.first + given.networks)
    for seed in seeds:
        for preset in presets:
            if (seed, preset, given.backend) not in done:
                yield seed, preset


def _checked(given: argparse.Namespace, seed: int, pipeline: str) -> dict[str, Any]:
    """The outcome of one network; what kills the process is found by the next one."""
    case = {"seed": seed, "pipeline": pipeline, "backend": given.backend}
    write_bytes(given.folder / "running.json", json.dumps(case).encode())
    try:
        with _limit(given.limit):
            network = random_network(seed, longest=given.longest)
            found = plain(
                check_network(
                    network,
                    pipeline,
                    given.backend,
                    given.encrypted,
                    given.max_bootstraps,
                    given.max_complexity,
                )
            )
    except TimeoutError as error:
        found = {**case, "category": "defect", "what": str(error), "trace": traceback.format_exc()}
    (given.folder / "running.json").unlink()
    assert isinstance(found, dict)
    return {"overflows": 0.0, "seconds": float(given.limit), **found, "longest": given.longest}


def _known(folder: Path) -> list[dict[str, Any]]:
    """What earlier runs found; one that died while it checked a network is a find."""
    path = folder / "outcomes.jsonl"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    running = folder / "running.json"
    if running.exists():
        case = json.loads(running.read_text())
        found = {**case, "category": "defect", "what": "the process died", "overflows": 0.0, "seconds": 0.0}
        _record(folder, known, found)
        running.unlink()
    return known


def _record(folder: Path, known: list[dict[str, Any]], found: dict[str, Any]) -> None:
    known.append(found)
    with (folder / "outcomes.jsonl").open("a") as file:
        file.write(json.dumps(found) + "\n")
    if found["category"] in FINDS:
        print(f"\r{found['category']}: seed {found['seed']}, {found['what'][:200]}", file=sys.stderr)


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def late(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _stop(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tell(
    known: list[dict[str, Any]], done: int = 0, seed: int = 0, preset: str = "", spent: float = 0
) -> None:
    if not sys.stderr.isatty():
        return
    counts = Counter(o["category"] for o in known)
    told = ", ".join(f"{counts[c]} {c}" for c in CATEGORIES)
    pace = f"; {spent / done:.1f} s a network" if done else ""
    line = f"{len(known)} networks: {told}{pace}; now seed {seed}, {preset}" if preset else ""
    sys.stderr.write(f"\r\x1b[K{line}")
    sys.stderr.flush()


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 5) if values else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="soak.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where outcomes and figures go")
    until = parser.add_mutually_exclusive_group()
    until.add_argument("--hours", type=float, help="stop after so many hours (a fraction will do)")
    until.add_argument("--seconds", type=float, help="stop after so many seconds")
    until.add_argument("--networks", type=int, metavar="N", help="stop after N networks of each preset")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (%(default)s)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--presets", default="balanced", metavar="A,B", help="compile with each (%(default)s)")
    what.add_argument("-p", "--pipeline", help="pipeline as text")
    parser.add_argument("--backend", default="reference", help="reference or concrete (%(default)s)")
    parser.add_argument(
        "--encrypted", type=int, default=0, metavar="N", help="N samples of each network on ciphertexts"
    )
    parser.add_argument(
        "--max-bootstraps",
        type=int,
        metavar="N",
        help="no ciphertexts for circuits of more than N bootstraps",
    )
    parser.add_argument(
        "--max-complexity",
        type=float,
        metavar="X",
        help="nor for circuits of a complexity over X (1e9 is about 0.5 s)",
    )
    parser.add_argument("--longest", type=int, default=4, metavar="N", help="most steps (%(default)s)")
    parser.add_argument(
        "--limit",
        type=int,
        default=600,
        metavar="S",
        help="seconds after which it is a find (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
