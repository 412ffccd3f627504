"""Runs command lines in processes forked from this one, which has imported everything and computed nothing.

Importing takes seconds, so hundreds of commands should do it once. Test processes are no parents for that:
they hold onnxruntime sessions, whose threads a forked child does not have: a child whose garbage collector
destroys such a session waits for them forever.

One request a line on standard input, ``{"arguments": [...], "out": path, "err": path}``; one answer a line:
``{"status": exit status, "seconds": processor time, "memory": bytes}``.
"""

from __future__ import annotations

import json
import os
import sys

# So that the forked processes have them.
import onnx_fhe.compiling
import onnx_fhe.inspection  # noqa: F401
from onnx_fhe.cli import main, watch


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
