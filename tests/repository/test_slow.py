"""tests/slow.txt names tests that there are, and CONTRIBUTING the slowest of them."""

from __future__ import annotations

from pathlib import Path

import pytest

LINES = (Path(__file__).parents[1] / "slow.txt").read_text().splitlines()
NAMES = [line.split(maxsplit=1)[1] for line in LINES if line and not line.startswith("#")]


def test_every_slow_test_is_there_once(root: Path) -> None:
    assert len(NAMES) == len(set(NAMES)) > 100
    for name in NAMES:
        file, _, test = name.partition("::")
        text = (root / file).read_text()
        assert f"def {test.split('[')[0]}(" in text if test else text, name


def test_what_is_listed_is_marked(request: pytest.FixtureRequest) -> None:
    """Of what this run holds: `make test-fast` has left the slow ones out already."""
    for item in request.session.items:
        names = {item.nodeid, item.nodeid.split("[")[0], item.nodeid.split("::")[0]}
        assert item.get_closest_marker("slow") or not names & set(NAMES), item.nodeid


def test_contributing_lists_ten_of_them(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text()
    cells = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    rows = [cell for cell in cells if "test_" in cell]
    assert len(rows) == 10
    for row in rows:
        assert any(f"tests/{row}".startswith(name) for name in NAMES), row
