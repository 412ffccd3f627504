"""Random networks, and what to hold a compiler of networks against: for tests, plug-ins and long runs.

    outcome = check_network(random_network(7), "balanced", "reference")

Nothing here needs pytest or hypothesis.
"""

from .agreement import Agreement, agreement
from .builder import Builder
from .checking import Outcome, check_network
from .ciphertexts import Encrypted, compare_encrypted
from .networks import STEPS, Network, random_network

__all__ = [
    "STEPS",
    "Agreement",
    "Builder",
    "Encrypted",
    "Network",
    "Outcome",
    "agreement",
    "check_network",
    "compare_encrypted",
    "random_network",
]
