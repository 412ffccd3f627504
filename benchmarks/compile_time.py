"""How long compilation takes, by preset, and how it grows with width, depth and calibration samples.

    python benchmarks/compile_time.py examples                                   # some minutes
    python benchmarks/compile_time.py FOLDER FOLDER --repeats 3 --json OUT.json --markdown OUT.md
    python benchmarks/compile_time.py FOLDER --against OTHER_CHECKOUT            # the same there, in turns

A model is NAME.onnx with NAME.calibration.npz beside it, or in the folder of `--data`; with NAME.test.npz or
NAME.validation.npz what was compiled is compared with the network on them. Two regressors and the dense
networks of the curves are made here. Each compilation has a process of its own. README.md says what each
figure is.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from compile_networks import REGRESSORS, Network, dense, regressor
from compile_report import to_markdown
from compile_sides import Side, Task, side, turns
from measuring import PARTS

from onnx_fhe.ir.errors import DataError, OnnxFheError
from onnx_fhe.ir.paths import write_bytes
from onnx_fhe.passes.framework.presets import DEFAULT, PRESETS

ROOT = Path(__file__).resolve().parent.parent
WIDTH, DEPTH, SAMPLES = 32, 3, 250
"""The dense network that one of the three is varied of."""


@dataclass(frozen=True)
class Case:
    """One thing to compile.

    Attributes:
        pipeline: A preset or a pipeline text.
        curve: What is varied (width, depth, samples); empty for a model.
        size: How much there is of it.
    """

    network: Network
    pipeline: str
    curve: str = ""
    size: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when everything was compiled on both sides."""
    given = _parser().parse_args(arguments)
    pipelines = [given.pipeline] if given.pipeline else given.presets.split(",")
    with tempfile.TemporaryDirectory(prefix="compile-time-") as temporary:
        folder = given.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            networks = [n for f in given.folders for n in find(f, given.data)]
            networks = chosen(networks, given.models)
            sides = [side(name, f, Path(temporary)) for name, f in _checkouts(given.against)]
        except OnnxFheError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        names = [] if given.no_regressors else list(REGRESSORS)
        for i, name in enumerate(names):
            _say(f"training {name} ({i + 1} of {len(names)})")
            networks.append(regressor(name, folder))
        cases = [Case(n, p) for n in networks for p in pipelines]
        cases += list(curves(given, folder))
        report: dict[str, Any] = {
            **machine.describe(),
            "command": shlex.join(["python", "benchmarks/compile_time.py", *(arguments or sys.argv[1:])]),
            "sides": {s.name: s.revision for s in sides},
            "settings": {"repeats": given.repeats, "backend": given.backend, "patience": given.patience},
            "rows": [],
        }
        for i, case in enumerate(cases):
            _say(f"{i + 1} of {len(cases)}: {case.network.name}, {case.pipeline}")
            report["rows"].append(_measured(case, sides, given))
            _write(given, report)
        _say("")
    print(to_markdown(report))
    return int(any("error" in found for row in report["rows"] for found in row["sides"].values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="compile_time.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*", help="folders with models and their data")
    parser.add_argument("--data", type=Path, help="where else NAME.calibration.npz and NAME.test.npz may be")
    parser.add_argument("--models", metavar="A,B", help="only these of the folders; all by default")
    parser.add_argument("--presets", default=",".join(PRESETS), help="compared presets (%(default)s)")
    parser.add_argument("-p", "--pipeline", help="a pipeline as text, in place of the presets")
    parser.add_argument("--no-regressors", action="store_true", help="leave the two trained networks out")
    for what, sizes in (("widths", "32,64,128,256"), ("depths", "4,8,16,32"), ("samples", "250,1000,4000")):
        parser.add_argument(
            f"--{what}", default=sizes, metavar="N,N", help="of that curve; empty for none (%(default)s)"
        )
    # As text, a preset looks for no mends: whether it does on random weights would make the curve jump.
    parser.add_argument(
        "--curve-pipeline", default=PRESETS[DEFAULT].text, help=f"of the curves (the text of {DEFAULT})"
    )
    parser.add_argument("--backend", default="concrete", help="as for compile (%(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="compilations of each; medians count (%(default)s)"
    )
    parser.add_argument("--patience", type=float, default=1800, help="most seconds of one (%(default)s)")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, to compare with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keep the networks that are made here")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures here")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the tables here, too")
    return parser


def find(folder: Path, data: Path | None) -> list[Network]:
    """The models of a folder that have calibration data beside them or in ``data``.

    Raises:
        DataError: There is none.
    """
    found = []
    for model in sorted(folder.glob("*.onnx")):
        places = [p / model.name for p in (folder, data) if p is not None]
        ends = [[p.with_suffix(f".{part}.npz") for p in places] for part in ("calibration", *PARTS)]
        files = [next((f for f in paths if f.is_file()), None) for paths in ends]
        if files[0] is not None:
            found.append(Network(model.stem, model, files[0], tuple(f for f in files[1:] if f is not None)))
    if not found:
        raise DataError(
            "the folder holds no model with data",
            file=str(folder),
            allowed="NAME.onnx with NAME.calibration.npz",
            do="put the data beside the model, or say where it is with --data",
        )
    return found


def chosen(networks: list[Network], names: str | None) -> list[Network]:
    """The named networks, in that order.

    Raises:
        DataError: One is not there.
    """
    if not names:
        return networks
    known = {n.name: n for n in networks}
    if missing := [n for n in names.split(",") if n not in known]:
        raise DataError("no such model with data", found=", ".join(missing), allowed=", ".join(known))
    return [known[n] for n in names.split(",")]


def curves(given: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """Dense networks, of which one size grows and the others stay."""
    for what, text in (("width", given.widths), ("depth", given.depths), ("samples", given.samples)):
        for size in (int(x) for x in text.split(",") if x):
            sizes = {"width": WIDTH, "depth": DEPTH, "samples": SAMPLES, what: size}
            yield Case(dense(**sizes, folder=folder), given.curve_pipeline, what, size)


def _checkouts(against: Path | None) -> Iterator[tuple[str, Path]]:
    yield "here", ROOT
    if against is not None:
        yield "there", against.resolve()


def _measured(case: Case, sides: Sequence[Side], given: argparse.Namespace) -> dict[str, Any]:
    network = case.network
    task = Task(
        model=network.model.resolve(),
        calibration=network.calibration.resolve(),
        held_out=tuple(p.resolve() for p in network.held_out),
        pipeline=case.pipeline,
        backend=given.backend,
        seed=given.seed,
    )
    return {
        "name": network.name,
        "pipeline": case.pipeline,
        "curve": case.curve,
        "size": case.size,
        "sides": turns(task, sides, given.repeats, given.patience),
    }


def _write(given: argparse.Namespace, report: Mapping[str, Any]) -> None:
    """After each row, so that a long run that is broken off leaves what it has."""
    if given.json:
        write_bytes(given.json, (json.dumps(report, indent=2) + "\n").encode())
    if given.markdown:
        write_bytes(given.markdown, (to_markdown(report) + "\n").encode())


def _say(what: str) -> None:
    """Progress, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{what}\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
