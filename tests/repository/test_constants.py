"""Numbers at module level: each says what it is, and its name says of what it is a limit or a share."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

ROOMS = ("ir", "analysis", "passes", "backends", "onnx_fhe")
# Names that say nothing outside of their file.
VAGUE = """
    ALIKE APART BATCH BATCHES BEGIN BETTER BLOCK CELLS CHANGED CHEAP CHUNK CLOSE CLOSER COARSE COST COUNT
    COUNTS DEAR DEARER DEEPEST DRAWS EACH END ENOUGH EQUAL EVERY EXACT EXTRA FAR FEW FEWER FEWEST FINE
    FINER FIXED FLOOR FREE GAIN GIVEN GROWN HELD HUGE KEPT KNOWN LARGE LARGER LARGEST LEAST LENGTH LIMIT
    LITTLE LONGEST LOOK LOOPED LOST MANY MARGIN MEMORY MINOR MORE MOST NARROW NEAR NOISE OFF OFTEN PART
    PLAIN PRIOR QUICK REACH ROOM ROUNDING ROUNDS ROWS SAFE SAMPLES SAVED SECONDS SETTLED SHARE SHARED
    SHIFT SHORTEST SIZE SIZES SLOW SMALL SMALLER SMALLEST SPARE STEP STEPS STILL STRONG SURE SWEEPS TAIL
    TARGET TICK TIMES TOGETHER TRIED TRIES UNKNOWN UNSEEN UNSURE USED USUAL VALUE WANTED WARM WEIGHT WELL
    WHOLE WIDE WIDEST WIDTH WIDTHS WORTH
"""


@dataclass(frozen=True)
class Constant:
    """A number, or several, at module level.

    Attributes:
        line: Where it stands.
        names: What it is called; several where one line sets several.
        told: Whether a docstring follows, or a comment stands before or beside it.
    """

    line: int
    names: tuple[str, ...]
    told: bool


def constants(source: str) -> Iterator[Constant]:
    """The numbers of a module whose names are in capitals."""
    body, lines = ast.parse(source).body, source.splitlines()
    for node, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not _is_number(node.value):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = tuple(n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
        if not all(name.isupper() for name in names):
            continue
        docstring = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        comment = "#" in lines[node.lineno - 1] or lines[node.lineno - 2].startswith("#")
        yield Constant(node.lineno, names, docstring or comment)


def _is_number(value: ast.expr | None) -> bool:
    """Whether an expression is made of numbers alone, such as ``2**16`` or ``(3, 0.5)``."""
    if value is None:
        return False
    kinds = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Tuple, ast.expr_context)
    parts = list(ast.walk(value))
    numbers = [p.value for p in parts if isinstance(p, ast.Constant)]
    return (
        all(isinstance(p, kinds) for p in parts)
        and bool(numbers)
        and all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers)
    )


def _in_package(root) -> Iterator[tuple[str, Constant]]:
    for room in ROOMS:
        for file in sorted((root / room).rglob("*.py")):
            for constant in constants(file.read_text()):
                yield f"{file.relative_to(root)}, line {constant.line}: {', '.join(constant.names)}", constant


def test_every_number_says_what_it_is(root):
    found = list(_in_package(root))
    assert len(found) > 300
    silent = [place for place, constant in found if not constant.told]
    assert not silent, "each needs a docstring: what it is, its unit, where it comes from\n" + "\n".join(
        silent
    )


def test_names_say_what_they_are_limits_of(root):
    vague_words = VAGUE.split()
    vague = [
        place
        for place, constant in _in_package(root)
        if any(n.strip("_") in vague_words or n.strip("_").startswith("MOST_") for n in constant.names)
    ]
    assert not vague, "MAX_ARTIFACT_BYTES rather than MOST\n" + "\n".join(vague)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('"""A module."""\nMAX_ROWS = 2**16\n"""Rows."""', [(("MAX_ROWS",), True)]),
        ('"""A module."""\n\nMAX_ROWS = 2**16\nOTHER = "a"', [(("MAX_ROWS",), False)]),
        ('"""A module."""\n# Bytes and rows.\nA, B = 1, -2.5', [(("A", "B"), True)]),
        ('"""A module."""\nA: Final[int] = 3  # rows', [(("A",), True)]),
        ('"""A module."""\nNAMES = frozenset({"a"})\nfound = 3\nON = True', []),
    ],
)
def test_the_check_sees_numbers(source, found):
    assert [(c.names, c.told) for c in constants(source)] == found
