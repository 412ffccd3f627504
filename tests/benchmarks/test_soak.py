"""benchmarks/soak.py: it counts, goes on where it stopped, and knows what killed it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EASY = "normalize,quantize{weights=8 activations=8},lower-to-integer,fuse-tlu"


@pytest.fixture
def soak(root: Path, tmp_path: Path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(root / "benchmarks" / "soak.py"), str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    return run


def outcomes(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]


def test_it_goes_on_where_it_stopped_and_counts_what_killed_it(soak, tmp_path):
    first = soak("-p", EASY, "--networks", "1", "--longest", "1", "--first", "5")
    assert first.stderr == ""
    assert "| pipeline | backend | networks |" in first.stdout
    case = {"seed": 8, "pipeline": EASY, "backend": "reference"}
    (tmp_path / "running.json").write_text(json.dumps(case))
    again = soak("-p", EASY, "--networks", "2", "--longest", "1", "--first", "5")
    assert again.returncode == 1, again.stderr
    found = outcomes(tmp_path)
    assert [o["seed"] for o in found] == [5, 8, 6]
    assert found[1]["what"] == "the process died"
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [f["seed"] for f in figures["finds"]] == [8]
    assert figures["rows"][0]["networks"] == 3
    assert figures["rows"][0]["defect"] == 1
    assert "the process died" in (tmp_path / "figures.md").read_text()
