"""The client of the example: it asks the service of server.sh what three images of digits show.

    python examples/service/client.py [URL [FOLDER]]

It needs onnx-fhe[client]. Secret keys are made once, in FOLDER/keys, and stay there. FOLDER/tokens is read
because the server of the example is on the same machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import onnx_fhe

SAMPLES = 3


def main(url: str = "http://127.0.0.1:8080", folder: str = "build/service") -> None:
    """Encrypt images, have them computed, decrypt, and print what they show."""
    place = Path(folder)
    if not (place / "tokens").exists():
        sys.exit(f"There is no {place / 'tokens'}: start the server first (sh examples/service/server.sh).")
    token = (place / "tokens").read_text().strip().partition(":")[2]
    program = onnx_fhe.RemoteProgram(url, place / "digits_mlp.client", keys=place / "keys", token=token)
    given = np.load(Path(__file__).resolve().parents[1] / "digits_mlp.test.npz")
    result = program.run({"input": given["input"][:SAMPLES]})
    (logits,) = result.outputs.values()
    for found, true in zip(logits.argmax(1), given["labels"], strict=False):
        print(f"the service computed {found} without seeing the image; it is a {true}")
    print(", ".join(f"{step} {seconds:.1f} s" for step, seconds in result.seconds.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
