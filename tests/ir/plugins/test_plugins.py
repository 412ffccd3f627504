"""Plug-ins: found, loaded wholly or not at all, and harmless while they are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from onnxscript import FLOAT, script, values
from onnxscript import opset18 as op

from onnx_fhe.backends import registry as backends
from onnx_fhe.ir.errors import PipelineError, PluginError, UserError
from onnx_fhe.ir.plugins import loading as plugins
from onnx_fhe.ir.plugins import tlu_operators
from onnx_fhe.ir.plugins.loading import broken_plugins, load_installed, load_plugin
from onnx_fhe.ir.plugins.store import owned_by
from onnx_fhe.ir.plugins.tlu_operators import registered_tlu_operators
from onnx_fhe.passes import Context, PassManager, register_tlu_operator
from onnx_fhe.passes.framework import registry
from onnx_fhe.passes.framework.describe import describe_passes
from onnx_fhe.passes.framework.pipeline import parse_passes
from onnx_fhe.passes.framework.registry import find_pass, pass_names

PASS = '''
from dataclasses import dataclass
from typing import ClassVar
from onnx_fhe.passes import Pass, option, register_pass, register_tlu_operator

@register_pass
@dataclass(frozen=True)
class {cls}(Pass):
    """Does nothing."""
    name: ClassVar[str] = "{name}"
    times: int = option(1, help="How often.")
    def run(self, model, context):
        return False
'''


BACKEND = """
from onnx_fhe.backends.reference import ReferenceBackend
from onnx_fhe.backends.registry import register_backend
register_backend("mine", lambda: ReferenceBackend())
"""

SQUARE = """
from onnx import helper
node = helper.make_node("Mul", ["x", "x"], ["y"])
body = helper.make_function("org.example", "Square", ["x"], ["y"], [node], [helper.make_opsetid("", 18)])
register_tlu_operator(body)
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plug-in is known before a test and none is left after it."""
    monkeypatch.setattr(plugins, "_plugins", {})
    monkeypatch.setattr(plugins, "_installed", False)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    for store in (registry.registered, tlu_operators.registered, backends.registered):
        monkeypatch.setattr(store, "entries", {})
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes modules and their entry points: ``installed(name=source)``."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(**sources: str) -> None:
        for module, source in sources.items():
            (tmp_path / f"{module}.py").write_text(source)
        entries = [EntryPoint(m.replace("_", "-"), m, plugins.GROUP) for m in sources]
        monkeypatch.setattr(plugins, "entry_points", lambda group: entries)

    return make


def write(path: Path, name: str = "do-nothing", cls: str = "DoNothing", more: str = "") -> Path:
    path.write_text(PASS.format(cls=cls, name=name) + more)
    return path


def test_a_file_is_a_plugin(tmp_path: Path):
    file = write(tmp_path / "mine.py")
    load_plugin(str(file))
    assert find_pass("do-nothing").owner == str(file)
    assert str(parse_passes("do-nothing{times=3}")[0]) == "do-nothing{times=3}"
    # Once more, also under another spelling, is no conflict.
    load_plugin(str(file))
    load_plugin(os.path.relpath(file))


def test_a_module_is_a_plugin(installed: Callable[..., None]):
    installed(mine_as_module=PASS.format(cls="DoNothing", name="do-nothing"))
    plugin = load_plugin("mine_as_module")
    assert plugin.owner == "mine_as_module"
    assert find_pass("do-nothing").owner == "mine_as_module"
    # Its entry point is the same plug-in.
    load_installed()
    assert not broken_plugins()


def test_a_callable_is_a_plugin(installed: Callable[..., None]):
    source = PASS.format(cls="DoNothing", name="do-nothing").replace("@register_pass\n", "")
    installed(with_function=source + "def go():\n    register_pass(DoNothing)\n")
    load_installed()
    with pytest.raises(PipelineError):
        find_pass("do-nothing")
    load_plugin("with_function:go")
    assert find_pass("do-nothing").origin == "plug-in"


@pytest.mark.parametrize(
    ("source", "found", "line"),
    [
        ("x = 1\nimport missing_package_of_a_plugin\n", "ModuleNotFoundError: No module named", 2),
        ("x = (\n", "SyntaxError: '(' was never closed", 1),
        ("\n\nraise SystemExit(3)\n", "SystemExit: 3", 3),
        ("def f():\n    1 / 0\n\nf()\n", "ZeroDivisionError: division by zero", 2),
    ],
)
def test_a_broken_file_is_refused_with_its_cause(tmp_path: Path, source: str, found: str, line: int):
    file = tmp_path / "broken.py"
    file.write_text(source)
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            load_plugin(str(file))
        assert caught.value.found.startswith(found)
        assert caught.value.where.file == f"{file}, line {line}"
        assert "Traceback" not in str(caught.value)


def test_what_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(PluginError, match="there is no such file") as caught:
        load_plugin(str(tmp_path / "none.py"))
    assert caught.value.where.file == str(tmp_path / "none.py")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my_passes.py")
    with pytest.raises(PluginError, match="there is no module 'my_pases'") as caught:
        load_plugin("my_pases")
    assert caught.value.do == "did you mean my_passes.py?"
    with pytest.raises(PluginError, match=r"no module 'json\.no_such'"):
        load_plugin("json.no_such")
    with pytest.raises(PluginError) as caught:
        load_plugin("json:no_such")
    assert "AttributeError" in caught.value.found
    with pytest.raises(PluginError):
        load_plugin("")


def test_a_plugin_is_loaded_wholly_or_not_at_all(tmp_path: Path):
    more = SQUARE + BACKEND + 'raise ValueError("half way")\n'
    file = write(tmp_path / "half.py", more=more)
    with pytest.raises(PluginError, match="half"):
        load_plugin(str(file))
    assert "do-nothing" not in pass_names()
    assert not registered_tlu_operators()
    assert list(backends.backends()) == ["reference", "concrete"]


def test_a_plugin_brings_passes_operators_and_backends(tmp_path: Path):
    file = write(tmp_path / "all_three.py", more=SQUARE + BACKEND)
    load_plugin(str(file))
    assert find_pass("do-nothing").owner == str(file)
    assert ("org.example", "Square") in registered_tlu_operators()
    assert backends.backends()["mine"] == str(file)
    assert backends.get_backend("mine").name == "reference"


def test_an_installed_backend_is_found(installed: Callable[..., None]):
    installed(brings_a_backend=BACKEND, broken_one="import no_such_module_of_a_plugin\n")
    assert backends.get_backend("reference").name == "reference"
    assert plugins.plugins() == ()
    assert backends.get_backend("mine").name == "reference"
    with pytest.raises(UserError, match=r"(?s)no backend 'mime'.*did you mean mine.*broken-one"):
        backends.get_backend("mime")


def test_two_plugins_that_want_one_backend(installed: Callable[..., None]):
    other = BACKEND.replace("lambda: ReferenceBackend()", "ReferenceBackend")
    installed(first_plugin=BACKEND, second_plugin=other)
    with pytest.raises(PluginError, match="two owners want the backend 'mine'") as caught:
        backends.get_backend("mine")
    assert caught.value.found == "first-plugin and second-plugin"


def test_a_name_of_ours_is_taken(tmp_path: Path):
    file = write(tmp_path / "bold.py", name="quantize")
    with pytest.raises(PluginError, match="two owners want the pass 'quantize'") as caught:
        load_plugin(str(file))
    assert caught.value.found == f"onnx-fhe and {file}"
    assert find_pass("quantize").origin == "built-in"


def test_a_broken_plugin_harms_nothing_until_it_is_named(installed: Callable[..., None], tmp_path: Path):
    installed(
        a_good_one=PASS.format(cls="DoNothing", name="do-nothing"),
        a_broken_one="import missing_package_of_a_plugin\n",
    )
    assert find_pass("onnx-ir.checker").origin == "onnx-ir"
    assert plugins.plugins() == ()
    assert find_pass("do-nothing").owner == "a-good-one"
    (broken,) = describe_passes().broken
    assert (broken.name, broken.value) == ("a-broken-one", "a_broken_one")
    assert "missing_package_of_a_plugin" in broken.error
    assert str(tmp_path / "a_broken_one.py") in broken.error
    with pytest.raises(PipelineError) as caught:
        parse_passes("its-pass")
    assert "broken: a-broken-one" in caught.value.do
    with pytest.raises(PluginError, match="cannot be loaded"):
        load_plugin("a_broken_one")


def test_two_plugins_that_want_one_name(installed: Callable[..., None]):
    source = PASS.format(cls="DoNothing", name="do-nothing")
    installed(first_plugin=source, second_plugin=source + PASS.format(cls="Other", name="other"))
    assert find_pass("onnx-ir.checker")
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            parse_passes("do-nothing")
        assert "first-plugin and second-plugin" in caught.value.found
        assert caught.value.what.count("^") == len("do-nothing")
    (broken,) = describe_passes().broken
    assert broken.name == "second-plugin"
    assert "two owners want the pass 'do-nothing'" in broken.error
    by_name = {p.name: p for p in describe_passes().passes}
    assert "first-plugin and second-plugin" in (by_name["do-nothing"].error or "")
    assert "other" not in by_name


def test_what_a_plugin_prints_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "chatty.py"
    file.write_text("print('hello')\n")
    load_plugin(str(file))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


_domain = values.Opset("org.example", 1)


@script(_domain, default_opset=op)
def Square(x: FLOAT) -> FLOAT:  # noqa: N802
    return op.Mul(x, x)


def square_by(operator: str) -> onnx.FunctionProto:
    """Another body of org.example::Square."""
    nodes, opset = [helper.make_node(operator, ["x"], ["y"])], helper.make_opsetid("", 18)
    return helper.make_function("org.example", "Square", ["x"], ["y"], nodes, [opset])


def test_an_operator_is_declared_with_its_body():
    assert register_tlu_operator(Square) is Square
    body = registered_tlu_operators()["org.example", "Square"]
    assert (body.domain, body.name) == ("org.example", "Square")
    # The same again is no conflict; another body is.
    assert register_tlu_operator(body) is body
    with pytest.raises(PluginError, match=r"two owners want the operator 'org\.example::Square'"):
        register_tlu_operator(square_by("Exp"))


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml", "onnx_fhe"])
def test_an_operator_of_onnx_needs_no_declaration(domain: str):
    node = helper.make_node("Erf", ["x"], ["y"])
    body = helper.make_function(domain, "Erf", ["x"], ["y"], [node], [helper.make_opsetid("", 18)])
    with pytest.raises(PluginError, match="its domain is taken"):
        register_tlu_operator(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (np.square, "is no function"),
        (3, "is no function"),
        (square_by("NoSuchOperator"), "is not valid ONNX"),
        (helper.make_function("org.example", "None", ["x"], [], [], []), "cannot work element by element"),
    ],
)
def test_what_is_no_body_is_refused(body: object, reason: str):
    with pytest.raises(PluginError, match=reason):
        register_tlu_operator(body)  # type: ignore[type-var]
    assert not registered_tlu_operators()


def test_operators_belong_to_the_plugin_that_is_loaded():
    with owned_by("somebody 1.0"):
        register_tlu_operator(Square)
    with pytest.raises(PluginError) as caught, owned_by("another 2.0"):
        register_tlu_operator(square_by("Exp"))
    assert caught.value.found == "somebody 1.0 and another 2.0"


@pytest.fixture(scope="module")
def example_plugin(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example plug-in, built and installed as its own package into a folder."""
    work = tmp_path_factory.mktemp("example")
    # setuptools builds inside the source folder: give it a copy.
    source, target = work / "source", work / "site"
    for file in ("pyproject.toml", "onnx_fhe_example_plugin/__init__.py"):
        copy = source / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((root / "examples" / "plugin" / file).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target), str(source)]
    subprocess.run([*pip, *options], check=True, capture_output=True, text=True)
    return target


def python(code: str, path: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    return done.stdout


def test_an_installed_package_is_found_through_its_entry_point(example_plugin: Path, digits_mlp):
    code = f"""
import json, numpy as np, onnx_ir as ir
from onnx_fhe.passes import PassManager
from onnx_fhe.passes.framework.describe import describe_pass
manager = PassManager.parse("clip-weights{{limit=1}}")
result = manager.run(ir.load({str(digits_mlp.model)!r}))
about = describe_pass("clip-weights")
print(json.dumps([manager.to_text(), result.modified, result.context.notes, about.owner, about.summary]))
"""
    text, modified, notes, owner, summary = json.loads(python(code, example_plugin))
    assert text == "clip-weights{limit=1.0}"
    assert modified
    assert "weights clipped" in notes[0]
    assert owner == "onnx-fhe-example-plugin 0.1.0"
    assert summary.startswith("Clip the weights")


def test_without_the_package_its_pass_is_unknown(tmp_path: Path):
    code = """
from onnx_fhe.ir.errors import PipelineError
from onnx_fhe.passes import PassManager
try:
    PassManager.parse("clip-weights")
except PipelineError as error:
    print(error.what.split("\\n")[0])
"""
    assert python(code, tmp_path) == "there is no pass 'clip-weights'\n"


def test_the_example_pass_clips(root: Path):
    load_plugin(str(root / "examples" / "plugin" / "onnx_fhe_example_plugin" / "__init__.py"))
    weights = np.array([[1, -1, 1, -1, 8]], np.float32)
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[N, 5] x) => (float[N, 1] y)'
        "<float[1, 5] w = {1, -1, 1, -1, 8}> { y = Gemm<transB = 1>(x, w) }"
    )
    context = Context()
    result = PassManager.parse("clip-weights{limit=2}").run(model, context)
    clipped = result.model.graph.initializers["w"].const_value
    assert clipped is not None
    assert np.array_equal(clipped.numpy(), weights.clip(None, 2 * weights.std()))
    assert context.notes == ["clip-weights: 1 weights clipped"]
    again = PassManager.parse("clip-weights{limit=9}").run(model)
    assert not again.modified
    assert again.context.notes == []
