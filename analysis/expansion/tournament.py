"""Which elements to compare, in which order: as few comparisons as possible for windows along one axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Window = tuple[int, ...]
Split = Callable[[Window], int]


@dataclass(frozen=True)
class Tournament:
    """Comparisons along one axis, in rounds.

    The elements of the axis have the numbers 0 .. size - 1; each comparison makes another, numbered on.

    Attributes:
        size: Elements that there are at first.
        rounds: The pairs that are compared at once, round by round.
        winners: For each window the number of its largest element.
    """

    size: int
    rounds: tuple[tuple[tuple[int, int], ...], ...]
    winners: tuple[int, ...]

    @property
    def comparisons(self) -> int:
        """Pairs that are compared."""
        return sum(map(len, self.rounds))


def plan(windows: Sequence[Window], size: int) -> Tournament:
    """The tournament with the fewest comparisons of those tried, and of these the one with fewest rounds.

    A comparison is made once for all windows that hold both sides, and the two sides may overlap: the largest
    of a window is the largest of two parts that cover it.

    Args:
        windows: The elements of each window, rising.
        size: Elements along the axis.
    """
    tried = [_plan(windows, size, begin, overlap) for begin in _BEGINS for overlap in (False, True)]
    return min(tried, key=lambda t: (t.comparisons, len(t.rounds)))


def _half(window: Window) -> int:
    return (len(window) + 1) // 2


def _power(window: Window) -> int:
    """The largest power of two below the length."""
    return 1 << ((len(window) - 1).bit_length() - 1)


def _aligned(window: Window) -> int:
    """Up to the next place that is a multiple of the largest power of two that fits."""
    unit = _power(window)
    while unit > 1:
        places = [i for i, p in enumerate(window) if i and p % unit == 0]
        if places:
            return places[0]
        unit //= 2
    return 1 if len(window) % 2 and window[0] % 2 else _power(window)


_BEGINS: tuple[Split, ...] = (_half, _power, _aligned, lambda _: 1, lambda window: len(window) - 1)


def _plan(windows: Sequence[Window], size: int, split: Split, overlap: bool) -> Tournament:
    made: dict[Window, tuple[int, Window, Window]] = {}

    def depth(window: Window) -> int:
        """The round after which a part is known; plans what it takes."""
        if len(window) == 1:
            return 0
        if window not in made:
            first = split(window)
            left = window[:first]
            right = window[-first:] if overlap and 2 * first >= len(window) else window[first:]
            made[window] = 1 + max(depth(left), depth(right)), left, right
        return made[window][0]

    last = max((depth(w) for w in windows), default=0)
    numbers: dict[Window, int] = {(i,): i for i in range(size)}
    rounds: list[tuple[tuple[int, int], ...]] = []
    for turn in range(1, last + 1):
        pairs = []
        for window, (when, left, right) in made.items():
            if when == turn:
                pairs.append((numbers[left], numbers[right]))
                numbers[window] = size + sum(len(r) for r in rounds) + len(pairs) - 1
        rounds.append(tuple(pairs))
    return Tournament(size, tuple(rounds), tuple(numbers[w] for w in windows))
