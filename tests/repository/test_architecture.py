"""Holds what docs/design/architecture.md says about rooms, files and names, by reading the source."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

from onnx_fhe.passes.framework.registry import find_pass, pass_names

ROOT = Path(__file__).resolve().parents[2]
# Imports go from right to left only.
ROOMS = ("ir", "analysis", "passes", "backends", "onnx_fhe")
HEAVY = {"concrete", "torch"}
# Rooms that are made of a slow package, and imported when they are used.
SLOW = (
    "onnx_fhe.backends.concrete",
    "onnx_fhe.backends.concrete_runtime",
    "onnx_fhe.passes.distill.training",
)
# Files past 300 lines, each with the reason why it is still one thing.
LONG: dict[str, str] = {}


def _name(file: Path) -> str:
    """The dotted name that a file of a room is imported by."""
    room, *inner = file.relative_to(ROOT).with_suffix("").parts
    parts = ["onnx_fhe", *([] if room == "onnx_fhe" else [room]), *inner]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_name(f): f for room in ROOMS for f in sorted((ROOT / room).rglob("*.py"))}


def room_of(module: str) -> int:
    """Index in ROOMS of a dotted name inside the package."""
    parts = module.split(".")
    return ROOMS.index(parts[1]) if len(parts) > 1 and parts[1] in ROOMS[:-1] else len(ROOMS) - 1


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a module imports, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                inside = module.split(".")
                keep = len(inside) - node.level + is_package
                base = ".".join([*inside[:keep], *([node.module] if node.module else [])])
            # `from .. import passes` imports a module, `from ..passes import base` one too: look at both.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@functools.cache
def parsed(source: str) -> ast.Module:
    """The tree of a file, which several tests walk through and none may change."""
    return ast.parse(source)


def at_import(tree: ast.Module) -> ast.Module:
    """The module without function bodies: what runs when it is imported."""

    class Drop(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    return Drop().visit(tree)


def wrong_way(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports that go from a room to one that stands on it."""
    return [
        f"{module}, line {line}: {name}"
        for line, name in imported(parsed(source), module, is_package)
        if name.split(".")[0] == "onnx_fhe" and room_of(name) > room_of(module)
    ]


def heavy(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of slow packages that happen when the module is imported."""
    tree = at_import(ast.parse(source))
    return [
        f"{module}, line {line}: {name}"
        for line, name in imported(tree, module, is_package)
        if name.split(".")[0] in HEAVY
    ]


def test_imports_go_one_way():
    found = [w for m, f in SOURCES.items() for w in wrong_way(f.read_text(), m, f.name == "__init__.py")]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "module", "is_package", "count"),
    [
        ("from ..ir import level", "onnx_fhe.passes.fuse", False, 0),
        ("from .passes import base", "onnx_fhe", True, 0),
        ("from ..passes.base import Pass", "onnx_fhe.ir.level", False, 1),
        ("from .. import backends", "onnx_fhe.passes.fuse", False, 1),
        ("from ... import compile", "onnx_fhe.backends.concrete.lower", False, 1),
        ("def f():\n    from ..passes import base", "onnx_fhe.ir", True, 1),
        ("def f():\n    from .. import passes", "onnx_fhe.ir.load", False, 1),
        ("import onnx_fhe.backends.base", "onnx_fhe.passes.fuse", False, 1),
    ],
)
def test_the_check_of_directions_sees_relative_imports(source, module, is_package, count):
    assert len(wrong_way(source, module, is_package)) == count


def circles(sources: dict[str, tuple[str, bool]]) -> list[list[str]]:
    """Modules that import each other, whether at import, inside a function or for the types alone.

    Args:
        sources: Text of each module by its dotted name, and whether it is a package.
    """
    graph = nx.DiGraph()
    for module, (text, is_package) in sources.items():
        for _, name in imported(parsed(text), module, is_package):
            # `from .walk import Walk` names a thing inside a module, `from . import walk` the module itself.
            found = name if name in sources else name.rpartition(".")[0]
            if found in sources and found != module:
                graph.add_edge(module, found)
    return sorted(sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1)


def test_no_file_imports_one_that_imports_it():
    sources = {m: (f.read_text(), f.name == "__init__.py") for m, f in SOURCES.items()}
    found = circles(sources)
    assert not found, "\n".join(", ".join(group) for group in found)


@pytest.mark.parametrize(
    ("a", "b", "count"),
    [
        ("from .b import B", "import numpy", 0),
        ("from .b import B", "from .a import A", 1),
        ("from . import b", "def f():\n    from .a import A", 1),
        ("from .b import B", "if TYPE_CHECKING:\n    from .a import A", 1),
        ("import onnx_fhe.b", "from onnx_fhe import a", 1),
    ],
)
def test_the_check_of_circles_sees_imports_wherever_they_stand(a, b, count):
    sources = {"onnx_fhe": ("", True), "onnx_fhe.a": (a, False), "onnx_fhe.b": (b, False)}
    assert len(circles(sources)) == count


def test_slow_packages_are_imported_where_they_are_used():
    found = [
        h
        for m, f in SOURCES.items()
        if not m.startswith(SLOW)
        for h in heavy(f.read_text(), m, f.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_the_check_of_slow_packages_ignores_functions_only():
    assert heavy("if True:\n    import torch", "onnx_fhe.ir.load")
    assert heavy("class A:\n    from concrete import fhe", "onnx_fhe.ir.load")
    assert not heavy("def f():\n    from concrete import fhe", "onnx_fhe.ir.load")


def test_importing_everything_but_the_concrete_backend_is_quick_and_light():
    modules = [m for m in SOURCES if not m.startswith(SLOW) and "__main__" not in m]
    code = f"""
import importlib, sys
for module in {modules!r}:
    importlib.import_module(module)
print(sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_module_that_ir_names_is_there():
    from onnx_fhe import ir

    assert [getattr(ir, name).__name__ for name in ir.MODULES] == [f"onnx_fhe.ir.{n}" for n in ir.MODULES]
    assert list(ir.MODULES) == sorted(ir.MODULES)


def _passes(file: Path) -> list[ast.ClassDef]:
    return [
        node
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Pass" for base in node.bases)
    ]


def _assigned(body: list[ast.stmt], name: str) -> object:
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return ast.literal_eval(node.value) if node.value else None
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return ast.literal_eval(node.value)
    return None


@pytest.mark.parametrize(
    "file", [f for f in sorted((ROOT / "passes").rglob("*.py")) if _passes(f)], ids=lambda f: f.stem
)
def test_a_pass_has_a_file_of_its_name(file):
    assert len(_passes(file)) == 1, "a pass has a file of its own"
    (defined,) = _passes(file)
    words = file.stem.split("_")
    assert defined.name.lower() == "".join(words)
    assert defined.name[0].isupper()
    assert _assigned(defined.body, "name") == "-".join(words)
    assert "dataclass(frozen=True)" in [ast.unparse(d) for d in defined.decorator_list]
    assert ast.get_docstring(defined)


def test_the_registry_finds_every_pass_and_nothing_else():
    files = [f for f in (ROOT / "passes").rglob("*.py") if _passes(f)]
    written = {f.stem.replace("_", "-") for f in files}
    entries = [find_pass(name) for name in pass_names()]
    assert {entry.name for entry in entries if entry.origin == "built-in"} == written


def numbers_for(source: str, name: str) -> list[int]:
    """Lines where a parameter or field of that name has a number for its default."""
    found = []
    for node in ast.walk(parsed(source)):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            pairs = [(node.target.id, node.value)]
        elif isinstance(node, ast.arguments):
            places = [*node.posonlyargs, *node.args]
            pairs = [(a.arg, d) for a, d in zip(places[::-1], node.defaults[::-1], strict=False)]
            pairs += [(a.arg, d) for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        for written, value in pairs:
            if written == name and isinstance(value, ast.Constant) and isinstance(value.value, float):
                found.append(value.lineno)
    return found


@pytest.mark.parametrize("name", ["p_error", "range_margin"])
def test_a_default_is_said_once(name):
    found = [f"{m}, line {line}" for m, f in SOURCES.items() for line in numbers_for(f.read_text(), name)]
    assert not found, f"{name}: " + "; ".join(found)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("def f(a, p_error: float = 1e-5): ...", [1]),
        ("def f(*, p_error=1e-5, b=None): ...", [1]),
        ("class A:\n    p_error: float = 1e-5", [2]),
        ("def f(p_error: float = DEFAULT, a=0.1, *, b): ...", []),
    ],
)
def test_the_check_of_defaults_sees_parameters_and_fields(source, lines):
    assert numbers_for(source, "p_error") == lines


def test_long_files_are_listed_with_a_reason():
    others = [
        f
        for folder in ("docs", "benchmarks", "examples", "tests/shared")
        for f in (ROOT / folder).rglob("*.py")
    ]
    files = [*SOURCES.values(), *others]
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in files}
    long = {name: lines for name, lines in lengths.items() if lines > 300}
    assert set(long) == set(LONG), f"past 300 lines: {long}; is each still one thing? listed: {sorted(LONG)}"
    assert all(LONG.values())


def test_no_path_of_one_machine_is_in_the_tree():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    names = [n for n in listed.decode().split("\0") if n and (ROOT / n).is_file()]
    assert "pyproject.toml" in names
    # Put together here, so that this file does not find itself.
    machine = re.compile(
        r"(?<![\w.}])/(?:" + "|".join(["tmp", "work", "root", "home", "Users", "farm"]) + r")/\w"
    )
    found = []
    for name in names:
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{i}: {line.strip()}"
            for i, line in enumerate(text.splitlines(), 1)
            if machine.search(line)
        ]
    assert not found, "\n".join(found)
