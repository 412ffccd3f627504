"""Runs command lines in processes forked from this one, which has imported everything and computed nothing.

Importing takes seconds, so hundreds of commands should do it once: a first child tries commands, and this
process imports what they imported. Test processes are no parents for that: they hold onnxruntime sessions,
whose threads a forked child does not have: a child whose garbage collector destroys such a session waits for
them forever.

One request a line on standard input, ``{"arguments": [...], "out": path, "err": path}``; one answer a line:
``{"status": exit status, "seconds": processor time, "memory": bytes}``.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

from onnx_fhe.cli import main
from onnx_fhe.cli import supervisor as watch
from onnx_fhe.cli.app import parser

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def imported() -> list[str]:
    """The modules that commands import: those of a child that has run some."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            model, data = (str(EXAMPLES / f"digits_mlp.{end}") for end in ("onnx", "calibration.npz"))
            with tempfile.TemporaryDirectory() as folder:
                out = ["--calibration", data, "--backend", "reference", "-o", f"{folder}/o.fhe"]
                for arguments in (
                    ["inspect", model],
                    ["inspect", __file__],
                    ["compile", model, *out, "-p", "quantize,lower-to-integer,fuse-tlu"],
                ):
                    with contextlib.suppress(SystemExit):
                        main(arguments)
            with os.fdopen(writing, "w") as file:
                file.write("\n".join(sys.modules))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        names = file.read().split()
    os.waitpid(child, 0)
    return names


for name in imported():
    # Some modules are there under other names, or are made as they are needed.
    with contextlib.suppress(Exception):
        importlib.import_module(name)


def run(arguments: list[str], out: str, err: str) -> None:
    """In the child: never returns."""
    status = 99
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        watch.fork()
        main(arguments)
        status = 0
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def prepared() -> None:
    """Compute here, once, what every command computes again; nothing of it holds a session."""
    from onnx_fhe.ir import dialect, opsets
    from onnx_fhe.machine import profile

    parser()
    opsets.target_opset()
    opsets.target_ir_version()
    dialect.function_protos()
    profile.shipped()


prepared()
# What a child never touches is not copied.
gc.collect()
gc.freeze()

for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
        run(**request)
    _, ended, usage = os.wait4(child, 0)
    answer = {
        "status": os.waitstatus_to_exitcode(ended),
        # Processor time: other work on this machine is not the file's fault.
        "seconds": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * 1024,
    }
    print(json.dumps(answer), flush=True)
