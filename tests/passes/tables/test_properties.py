"""The table passes on random integer networks: exact, never at a higher cost, idempotent, truthful."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import Network

from onnx_fhe.testing.texts import check_exact

PASSES = [
    "merge-tables",
    "remove-identity-tables",
    "remove-constant-tables",
    "move-tables",
    "share-subexpressions",
    "deduplicate-lookups",
    "compose-linear",
]
ALL = ",".join([*PASSES, *PASSES])


@pytest.mark.parametrize("name", [*PASSES, ALL])
def test_random_networks_stay_exact_and_cost_no_more(name: str) -> None:
    @settings(max_examples=8 if name == ALL else 4)
    @given(st.integers(0, 10**6))
    def check(seed: int) -> None:
        check_exact(Network(seed).build(), name)

    check()


@pytest.mark.parametrize("name", ["merge-tables", "move-tables", "deduplicate-lookups", ALL])
def test_tables_among_moved_and_pooled_elements_stay_exact_and_cost_no_more(name: str) -> None:
    @settings(max_examples=8)
    @given(st.integers(0, 10**6))
    def check(seed: int) -> None:
        check_exact(Network(seed).moving(), name)

    check()
