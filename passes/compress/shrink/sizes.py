"""How much is removed from a network before it is trained: the sizes that are tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much is removed: most output error of layers and of neurons, most share of the neurons."""

    layers: float
    ratio: float
    neurons: float

    @property
    def text(self) -> str:
        """The passes that do it."""
        return (
            f"remove-layers{{tolerance={self.layers:g}}},"
            f"remove-neurons{{ratio={self.ratio:g} tolerance={self.neurons:g}}}"
        )


USUAL, SMALL, LARGE = Size(0.01, 0.5, 0.02), Size(0.03, 0.7, 0.06), Size(0.002, 0.5, 0.004)
"""Where it begins; what is tried where that is well within the loss, and where it is past it."""
NEXT = Size(0.03, 0.5, 0.02), SMALL
"""What is tried one after the other where tables of 5 bits keep well within the loss."""
BETWEEN = Size(0.005, 0.5, 0.02)
"""Where it begins with a network without any activation, which loses too much."""
