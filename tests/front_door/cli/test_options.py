"""Options of commands: each is declared once, whichever commands have it."""

from __future__ import annotations

import ast
from collections import defaultdict

from onnx_fhe.cli.app import parser
from onnx_fhe.ir.p_error import DEFAULT_P_ERROR

# Options of one name that mean different things.
DIFFERENT = {
    "--jobs",  # `run`: samples at a time, or auto; `evaluate`: calls; `tune`: trials
}


def declared(source: str) -> list[str]:
    """The flags that a module hands to Typer."""
    return [
        argument.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Option", "_option"))
        for argument in node.args
        if isinstance(argument, ast.Constant) and str(argument.value).startswith("-")
    ]


def test_an_option_is_declared_once(root):
    places = defaultdict(list)
    for file in sorted((root / "onnx_fhe" / "cli").glob("*.py")):
        for flag in declared(file.read_text()):
            places[flag].append(file.name)
    assert len(places) > 40
    assert {flag: files for flag, files in places.items() if len(files) > 1}.keys() == DIFFERENT


def test_the_check_sees_every_option():
    assert declared('a = typer.Option("-o", "--output")\nb = auto_or_number_option("--jobs", 1, "x")') == [
        "-o",
        "--output",
        "--jobs",
    ]


def test_help_says_the_default_p_error():
    (option,) = (p for p in parser().commands["compile"].params if p.name == "p_error")
    (said,) = (float(word) for word in option.help.split() if word[0].isdigit())
    assert said == DEFAULT_P_ERROR
