"""The walk "How to add a pass" works as it is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def walked(root, tmp_path):
    """A copy of the package with the pass of the walk added, and the walk's test beside it."""
    package = tmp_path / "onnx_fhe"
    shutil.copytree(root / "onnx_fhe", package)
    for room in ("ir", "analysis", "passes", "backends"):
        shutil.copytree(root / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    text = (root / "CONTRIBUTING.md").read_text()
    walk = text[text.index("## How to add a pass") :]
    source, test = re.findall(r"```python\n(.*?)```", walk, re.DOTALL)
    (package / "passes" / "compress" / "drop_small_weights.py").write_text(source)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_drop_small_weights.py").write_text(test)
    return tmp_path


def run(folder, *arguments):
    # The copy comes before the installed package on the path.
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tests_of_the_walk_pass(walked):
    done = run(walked, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_walk_is_clean_code(root, walked):
    shutil.copy(root / "pyproject.toml", walked)
    written = [*walked.rglob("*drop_small_weights.py")]
    assert len(written) == 2
    for command in (["check"], ["format", "--check"]):
        done = run(walked, "-m", "ruff", *command, "--no-cache", *map(str, written))
        assert done.returncode == 0, done.stdout
