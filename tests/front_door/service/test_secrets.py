"""No byte of a secret key reaches the server: neither its processes' memory, nor its disk, nor its log."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import onnx_fhe

pytestmark = [
    pytest.mark.encrypted,
    pytest.mark.skipif(sys.platform != "linux", reason="reads memory as Linux shows it"),
]

WINDOW = 64
"""Bits of a secret key in one window: nothing else has the same by chance."""
CHUNK = 2**20
"""Bytes of memory that are searched at a time."""


def needles(client) -> list[bytes]:
    """Windows of all secret keys, in each way that a key of bits may lie in memory."""
    (side,) = client._sides.values()
    found = []
    for key in side._keys.get_client_keys().get_secret_keys():
        content = key.serialize()
        size = key.param.dimension() if callable(getattr(key.param, "dimension", None)) else 0
        words = np.frombuffer(content[len(content) % 8 :], np.uint64)
        bits = words[-size:] if size else words[words <= 1]
        bits = bits[bits <= 1][-512:].astype(np.uint64)
        assert 0.3 < bits.mean() < 0.7
        for first in np.flatnonzero(bits)[[0, 100]]:  # a window that begins with 0 is slow to look for
            window = bits[first : first + WINDOW]
            found += [window.tobytes(), window.astype(np.uint8).tobytes()]
            found += [
                np.packbits(window.astype(np.uint8), bitorder=order).tobytes() for order in ("big", "little")
            ]
    return found


def memory(pid: int):
    """The memory of a process that can be written to, piece by piece."""
    with open(f"/proc/{pid}/mem", "rb", 0) as content:  # noqa: PTH123 - no file that Path reads
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            if not rights.startswith("rw") or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            first, last = (int(x, 16) for x in place.split("-"))
            for start in range(first, last, CHUNK):
                try:
                    content.seek(start)
                    piece = content.read(min(CHUNK + 1024, last - start))
                except OSError:
                    continue
                if piece.count(0) < len(piece):
                    yield piece


def holds(pid: int, wanted: list[bytes]) -> bool:
    return any(needle in piece for piece in memory(pid) for needle in wanted)


def test_no_byte_of_a_secret_key_reaches_the_server(launch, table, alices_keys):
    service = launch(workers=1, tokens=True, of=table)
    service.wait_for("worker ready")
    program = onnx_fhe.RemoteProgram(service.url, table.client, alices_keys, "a" * 32)
    result = program.run(table.some(2))
    np.testing.assert_array_equal(result.outputs["y"], table.expected(2))

    secret = needles(program.client)
    evaluation = program.client.evaluation_keys()
    # The search finds what is there: the secret keys in this process, and in theirs what they have to know.
    assert holds(os.getpid(), secret)
    pids = service.pids
    assert len(pids) >= 3
    assert any(holds(pid, [evaluation.content[5000:5064]]) for pid in pids)
    for pid in pids:
        assert not holds(pid, secret), f"process {pid}"

    files = [p for p in service.store.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) > len(evaluation.content)
    for path in (*files, service.log):
        content = path.read_bytes()
        assert not any(needle in content for needle in secret), path
    log = service.log.read_bytes()
    assert b"a" * 32 not in log
    assert evaluation.id.encode() not in log
