"""docs/operators.md says what the compiler does now, of every operator that the installed onnx has."""

from __future__ import annotations

from pathlib import Path

import make_operators
import pytest
from operator_calls import CALLS

from onnx_fhe.analysis.regions.refusals import REFUSALS

DOCS = Path(__file__).parents[2] / "docs"
LINES = [line for line in (DOCS / "operators.md").read_text().splitlines() if line.startswith("| ")][1:]
NAMES = [schema.name for schema in make_operators.schemas()]
SHARES = 8


def of_page(names: list[str]) -> list[str]:
    return [line for line in LINES if line.split("|")[1].strip() in names]


def test_every_operator_has_its_line():
    assert {line.split("|")[1].strip() for line in LINES} - {"---"} == set(NAMES), "out of date: make docs"


@pytest.mark.parametrize("share", range(SHARES))
def test_the_page_is_up_to_date(share):
    names = NAMES[share::SHARES]
    made = [
        f"| {r.operator} | {r.case} | {r.lowering} | {r.cost} |" for r in make_operators.rows(tuple(names))
    ]
    assert of_page(names) == made, "docs/operators.md is out of date: make docs"


def test_element_wise_operators_are_found_and_not_listed():
    unary = [
        s.name for s in make_operators.schemas() if make_operators._by_schema(s) and s.name not in REFUSALS
    ]
    tables = [name for name in unary if any("| table |" in line for line in of_page([name]))]
    assert len(tables) > 35
    assert not set(tables) & set(CALLS) - {"Cast"}


def test_refusals_name_operators_that_there_are():
    assert set(REFUSALS) <= set(NAMES)
