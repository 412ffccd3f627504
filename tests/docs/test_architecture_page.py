"""docs/design/architecture.md shows the rooms, levels and contracts that the code has."""

from __future__ import annotations

from pathlib import Path

import make_architecture

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "design" / "architecture.md").read_text()


def test_the_page_is_up_to_date():
    assert make_architecture.page(PAGE) == PAGE, "docs/design/architecture.md is out of date: make docs"


def test_the_pictures_and_contracts_are_there():
    for name in ("rooms", "contents", "levels", "contracts"):
        assert f"<!-- made: {name} -->" in PAGE
    assert "passes --> analysis" in PAGE
    assert "analysis --> passes" not in PAGE
    assert "float -->|quantize| qdq" in PAGE
    assert "def require_calibration(self" in PAGE


def test_every_folder_says_what_it_holds():
    lines = [line for line in make_architecture.contents().splitlines() if line.startswith("| `")]
    assert len(lines) > 30
    assert not [line for line in lines if line.split("|")[2].strip() in ("", "``") or "|  |" in line]
