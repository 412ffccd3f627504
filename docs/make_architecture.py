"""Writes the parts of docs/design/architecture.md that are read off the code: rooms, levels and contracts.

Each part stands between ``<!-- made: NAME -->`` and ``<!-- end -->``; all else is written by hand.

    python docs/make_architecture.py [--check]
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from onnx_fhe.ir.level import Level
from onnx_fhe.passes.framework.registry import find_pass, pass_names

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "design" / "architecture.md"
ROOMS = ("ir", "analysis", "passes", "backends", "onnx_fhe")
CONTRACTS = (
    ("passes/framework/base.py", ("Target", "Context", "Pass", "option")),
    ("backends/base.py", ("Backend", "Circuit", "EncryptedSession")),
    ("ir/partition.py", ("Parts", "partition")),
)
"""Files, and what of each a pass or a backend has to know."""
_PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(text: str) -> str:
    """``text`` of the page with its parts made anew."""
    made = {"rooms": rooms(), "contents": contents(), "levels": levels(), "contracts": contracts()}
    return _PART.sub(lambda found: f"{found[1]}{made[found[2]]}{found[3]}", text)


def rooms() -> str:
    """A picture of the rooms: an arrow goes from a room to one that it imports."""
    arrows = {(a, b) for file in _sources() for a, b in _imports(file) if a != b}
    lines = [f'    {room}["{room}/"]' for room in ROOMS]
    lines += [
        f"    {a} --> {b}" for a, b in sorted(arrows, key=lambda ab: (ROOMS.index(ab[0]), ROOMS.index(ab[1])))
    ]
    return "\n".join(["```mermaid", "flowchart RL", *lines, "```", ""])


def contents() -> str:
    """A table of the folders in each room, each with the first sentence of its package."""
    lines = ["| folder | holds |", "| --- | --- |"]
    for room in ROOMS:
        for package in sorted((ROOT / room).rglob("__init__.py")):
            folder = package.parent.relative_to(ROOT).as_posix()
            told = _first_sentence(package) or _files(package.parent)
            lines.append(f"| `{folder}/` | {told} |")
    return "\n".join([*lines, ""])


def levels() -> str:
    """A picture of the levels: an arrow is a pass that moves a model to another one."""
    moving = defaultdict(list)
    for entry in map(find_pass, pass_names()):
        produced = getattr(entry.cls, "produces", None)
        for level in getattr(entry.cls, "accepts", ()) if produced is not None else ():
            if level is not produced:
                moving[level, produced].append(entry.name)
    lines = [f"    {level.value}([{level.value}])" for level in Level]
    lines += [
        f"    {a.value} -->|{'<br>'.join(names)}| {b.value}" for (a, b), names in sorted(moving.items())
    ]
    lines += ["    circuit([circuit])", f"    {Level.INTEGER.value} -->|a backend| circuit"]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```", ""])


def contracts() -> str:
    """The classes and functions that others build on, as they stand in the code, without their bodies."""
    parts = []
    for name, wanted in CONTRACTS:
        tree = ast.parse((ROOT / name).read_text())
        shown = [_shown(node) for node in tree.body if getattr(node, "name", None) in wanted]
        parts.append("\n".join(["```python", f"# {name}", "\n\n".join(shown), "```", ""]))
    return "\n".join(parts)


def _shown(node: ast.AST) -> str:
    """A class or function with its signatures, its fields and the first sentences of its docstrings."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return _signature(node)
    assert isinstance(node, ast.ClassDef)
    lines = [f"@{ast.unparse(d)}" for d in node.decorator_list]
    lines.append(f"class {node.name}({', '.join(map(ast.unparse, node.bases))}):".replace("()", ""))
    if told := _sentence(ast.get_docstring(node)):
        lines.append(f"    # {told}")
    for inner in node.body:
        if isinstance(inner, ast.AnnAssign) and not ast.unparse(inner.target).startswith("_"):
            lines.append("    " + ast.unparse(inner))
        elif isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
            lines.append("    " + _signature(inner).replace("\n", "\n    "))
    return "\n".join(lines)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    head = f"def {node.name}({ast.unparse(node.args)}){returns}"
    decorators = "".join(f"@{ast.unparse(d)}\n" for d in node.decorator_list)
    told = _sentence(ast.get_docstring(node))
    return decorators + head + (f"\n    # {told}" if told else "")


def _sentence(text: str | None) -> str:
    """The first sentence of a docstring on one line, without its full stop."""
    first = " ".join((text or "").split("\n\n")[0].split())
    return first.rstrip(".").replace("``", "`")


def _first_sentence(package: Path) -> str:
    return _sentence(ast.get_docstring(ast.parse(package.read_text())))


def _files(folder: Path) -> str:
    names = sorted(f.stem for f in folder.glob("*.py") if not f.stem.startswith("_"))
    return ", ".join(f"`{n}`" for n in names)


def _sources() -> Iterator[Path]:
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            # A checkout that is used in place has links to the rooms inside the front door.
            if not any(parent.is_symlink() for parent in file.parents):
                yield file


def _imports(file: Path) -> Iterator[tuple[str, str]]:
    """Pairs of rooms: that of a file, and one that it imports from."""
    room, *inner = file.relative_to(ROOT).parts
    here = ["onnx_fhe", *([] if room == "onnx_fhe" else [room]), *inner[:-1]]
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        kept = here[: len(here) - node.level + 1]
        for name in [node.module] if node.module else [alias.name for alias in node.names]:
            target = [*kept, *name.split(".")]
            if len(target) > 1:
                yield room, target[1] if target[1] in ROOMS[:-1] else "onnx_fhe"


def main() -> int:
    """Write the page, or say with ``--check`` whether it is up to date."""
    text = PAGE.read_text()
    made = page(text)
    if "--check" in sys.argv[1:]:
        return int(made != text)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
