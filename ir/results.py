"""Who may see what is decrypted: the owner of the keys alone, or anybody.

With a tolerated error per lookup that somebody can meet, a wrong result says something about the noise, and
so about the secret key, to whoever sees it beside what is right (IND-CPA^D: Li and Micciancio, "On the
Security of Homomorphic Encryption on Approximate Numbers", 2021; Cheon et al., "Attacks Against the IND-CPA-D
Security of Exact FHE Schemes", 2024). Results that are shared take errors that nobody meets, and nothing that
depends on the noise without them, as approximate rounding does.
"""

from __future__ import annotations

from typing import Literal, get_args

from .errors import UserError

Results = Literal["owner", "shared"]
"""Who may see what was decrypted: only the owner of the keys, or anybody."""
DEFAULT_RESULTS: Results = "owner"
SHARED_P_ERROR = 2.0**-128
"""Tolerated error per lookup where results are shared."""
SHARED_P_ERRORS = (SHARED_P_ERROR, 2.0**-112, 2.0**-96, 2.0**-80, 2.0**-64)
"""What is tried where no parameters are found for the first, in this order."""

OWNERS_ALONE = (
    "These results are for the owner of the keys alone: whoever sees many of them, beside what is right,"
    " learns something about the secret keys. Compile with --results shared where they are to be passed on."
)
"""What holds of results that are not to be shared, in a sentence for people."""


def check_results(results: str) -> None:
    """Refuse what is neither.

    Raises:
        UserError: It is something else.
    """
    if results not in get_args(Results):
        raise UserError(
            "results are for somebody else", found=repr(results), allowed=" or ".join(get_args(Results))
        )


def check_errors(results: Results, p_error: float | None) -> None:
    """Refuse a tolerated error that results for everybody contradict.

    Raises:
        UserError: It is larger than they take.
    """
    if results == "shared" and p_error is not None and p_error > SHARED_P_ERROR:
        raise UserError(
            "results that are shared need errors that nobody meets",
            found=f"p_error {p_error:g}",
            allowed=f"up to 2^-128 ({SHARED_P_ERROR:.3g})",
            do="leave p_error out, or results: shared",
        )


def is_plausible(results: Results, p_error: float | None) -> bool:
    """Whether results may be for whom a file says, with the tolerated error that it says."""
    return results == "owner" or (p_error is not None and p_error <= max(SHARED_P_ERRORS))
