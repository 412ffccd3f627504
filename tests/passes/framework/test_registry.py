"""Which passes there are, who owns them, and what a pipeline may name."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import pytest
from onnx_ir.passes import PassBase, common

from onnx_fhe.ir.errors import OnnxFheError, PipelineError, PluginError
from onnx_fhe.ir.plugins import loading as plugins
from onnx_fhe.ir.plugins.store import NameTakenError
from onnx_fhe.passes import Context, Pass, option, register_pass
from onnx_fhe.passes.framework import registry
from onnx_fhe.passes.framework.describe import describe_passes
from onnx_fhe.passes.framework.manager import PassManager, _renamed_options
from onnx_fhe.passes.framework.onnx_ir_passes import onnx_ir_passes
from onnx_fhe.passes.framework.options import check_options, options_of
from onnx_fhe.passes.framework.pipeline import parse_passes, print_passes
from onnx_fhe.passes.framework.presets import DEFAULT, PRESETS
from onnx_fhe.passes.framework.registry import find_pass, pass_names
from onnx_fhe.passes.framework.text import parse


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it, and plug-ins that other tests tried are not there."""
    monkeypatch.setattr(plugins, "_plugins", {})
    before = dict(registry.registered.entries)
    yield
    registry.registered.entries.clear()
    registry.registered.entries.update(before)


def make(pass_name: str, module: str = "someone") -> type[Pass]:
    """A pass of a plug-in."""

    @dataclass(frozen=True)
    class Nothing(Pass):
        """Does nothing.

        At all.
        """

        name: ClassVar[str] = pass_name
        times: int = option(1, help="How often.", low=1)

        def run(self, model: ir.Model, context: Context) -> bool:
            return False

    options_of(Nothing)  # Reads the annotations (and keeps them) while the module is the real one.
    Nothing.__module__ = module
    Nothing.__qualname__ = f"Nothing{pass_name}"
    return Nothing


def test_an_option_of_the_release_before_still_parses_and_a_note_says_its_name():
    manager = PassManager.parse(
        "quantize{norm=15 layers={}},insert-rounding{fill=full most=4},distill{hold=0.2}"
    )
    assert manager.to_text() == (
        "quantize{max-weight-norm=15.0},insert-rounding{max-bits=4 range-fill=full},"
        "distill{validation-share=0.2}"
    )
    notes = list(_renamed_options(manager.passes))
    assert "quantize: the option norm is called max-weight-norm now" in notes[0]
    assert len(notes) == 4
    assert not list(_renamed_options(PassManager.parse(manager.to_text()).passes))
    with pytest.raises(PipelineError, match="given twice"):
        PassManager.parse("quantize{norm=15 max-weight-norm=15}")


def test_built_in_passes_are_the_files_of_their_names():
    entry = find_pass("quantize")
    assert entry.cls.__name__ == "Quantize"
    assert (entry.owner, entry.origin) == ("onnx-fhe", "built-in")
    assert {"registry", "text", "base", "manager"}.isdisjoint(pass_names())


def test_naming_one_pass_does_not_import_the_others():
    code = (
        "import sys; from onnx_fhe.passes.framework.registry import find_pass; find_pass('onnx-ir.checker');"
        "print([m for m in sys.modules if m in ('onnx_fhe.passes.quantize.quantize', 'concrete', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_passes_of_onnx_ir_are_there():
    exported = {getattr(common, n) for n in common.__all__}
    assert set(onnx_ir_passes().values()) == {c for c in exported if issubclass(c, PassBase)}
    entry = find_pass("onnx-ir.common-subexpression-elimination")
    assert entry.cls is common.CommonSubexpressionEliminationPass
    assert entry.owner == f"onnx-ir {ir.__version__}"
    assert [(o.name, o.hint, o.default) for o in entry.options] == [("size_limit", int, 10)]
    assert "maximum size" in entry.options[0].help


def test_every_onnx_ir_pass_is_made_from_its_name_alone():
    for name in onnx_ir_passes():
        (made,) = parse_passes(name)
        assert type(made) is onnx_ir_passes()[name]
        assert print_passes([made]) == name


def test_onnx_ir_passes_print_back_with_their_options():
    text = "onnx-ir.shape-inference{check-type=false},onnx-ir.common-subexpression-elimination{size-limit=20}"
    made = parse_passes(text)
    assert made[0].check_type is False  # type: ignore[attr-defined]
    assert made[1].size_limit == 20  # type: ignore[attr-defined]
    assert print_passes(made) == text


def test_onnx_ir_options_are_checked():
    with pytest.raises(PipelineError) as caught:
        parse_passes("onnx-ir.checker,onnx-ir.common-subexpression-elimination{size-limit=x}")
    assert caught.value.allowed == "whole number"
    assert caught.value.what.endswith(" ^")


def test_an_unknown_pass_is_pointed_at_and_the_nearest_named():
    with pytest.raises(PipelineError) as caught:
        parse_passes("normalize,quantise{weights=3}")
    assert caught.value.what.split("\n")[1:] == ["  normalize,quantise{weights=3}", "            ^^^^^^^^"]
    assert caught.value.do == "did you mean quantize?"
    assert "onnx-ir" not in caught.value.allowed
    with pytest.raises(PipelineError) as caught:
        parse_passes("onnx-ir.remove-unused-node")
    assert caught.value.do == "did you mean onnx-ir.remove-unused-nodes?"


def test_a_registered_pass_is_found_with_its_owner():
    cls = register_pass(make("do-nothing"))
    entry = find_pass("do-nothing")
    assert (entry.cls, entry.owner, entry.origin) == (cls, "someone", "plug-in")
    assert "do-nothing" in pass_names()
    assert parse_passes("do-nothing{times=2}") == [cls(times=2)]  # type: ignore[call-arg]


def test_a_name_taken_twice_names_both_owners():
    register_pass(make("do-nothing", "first_one"))
    with pytest.raises(PluginError) as caught:
        register_pass(make("do-nothing", "second_one"))
    assert isinstance(caught.value, NameTakenError)
    assert "first_one and second_one" in str(caught.value)
    assert find_pass("do-nothing").owner == "first_one"


@pytest.mark.parametrize(
    ("name", "owner"),
    [("quantize", "onnx-fhe"), ("balanced", "onnx-fhe (a preset)"), ("onnx-ir.inline", "onnx-ir ")],
)
def test_our_names_are_taken(name: str, owner: str):
    with pytest.raises(PluginError) as caught:
        register_pass(make(name))
    assert caught.value.found.startswith(owner)
    assert caught.value.found.endswith("and someone")


def test_the_same_class_again_is_no_conflict():
    cls = register_pass(make("do-nothing"))
    assert register_pass(cls) is cls
    # A notebook's cell that is run again makes another class of the same name.
    again = register_pass(make("do-nothing"))
    assert find_pass("do-nothing").cls is again


def test_what_cannot_be_registered_is_refused_with_the_reason():
    with pytest.raises(PluginError, match="only a subclass"):
        register_pass(common.CheckerPass)  # type: ignore[type-var]
    with pytest.raises(PluginError) as caught:

        @register_pass
        class NoDataclass(Pass):
            name: ClassVar[str] = "no-dataclass"
            bits: int = option(3, help="Bits.")

            def run(self, model: ir.Model, context: Context) -> bool:
                return False

    assert "@dataclass(frozen=True)" in caught.value.do
    with pytest.raises(PluginError, match="cannot hold"):
        register_pass(make("Do Nothing"))

    @dataclass(frozen=True)
    class NoRun(Pass):
        name: ClassVar[str] = "no-run"

    with pytest.raises(PluginError, match="no method run"):
        register_pass(NoRun)


def test_presets_stand_in_a_pipeline(monkeypatch: pytest.MonkeyPatch):
    cls = register_pass(make("do-nothing"))
    preset = dataclasses.replace(PRESETS[DEFAULT], text="do-nothing{times=2},onnx-ir.checker")
    monkeypatch.setitem(PRESETS, DEFAULT, preset)
    made = parse_passes(f"do-nothing,{DEFAULT},do-nothing{{times=3}}")
    assert print_passes(made) == "do-nothing,do-nothing{times=2},onnx-ir.checker,do-nothing{times=3}"
    assert made[1] == cls(times=2)  # type: ignore[call-arg]
    with pytest.raises(PipelineError, match="takes no options") as caught:
        parse_passes(f"{DEFAULT}{{times=3}}")
    assert "do-nothing{times=2}" in caught.value.do


def test_presets_hold_passes_only_and_print_back():
    for preset in PRESETS.values():
        assert {p.name for p in parse(preset.text)}.isdisjoint(PRESETS)
        assert preset.summary.endswith(".")


def test_a_toml_file_in_a_pipeline(tmp_path: Path):
    register_pass(make("do-nothing"))
    file = tmp_path / "p.toml"
    file.write_text('[[pass]]\nname = "do-nothing"\ntimes = 2\n[[pass]]\nname = "onnx-ir.checker"\n')
    made = parse_passes(f"@{file},do-nothing")
    assert print_passes(made) == "do-nothing{times=2},onnx-ir.checker,do-nothing"
    file.write_text('[[pass]]\nname = "do-nothing"\ntime = 2\n')
    with pytest.raises(PipelineError) as caught:
        parse_passes(f"@{file}")
    assert caught.value.do == "did you mean times?"
    assert caught.value.where.file == str(file)


def test_the_catalogue_says_it_all_and_is_json():
    register_pass(make("do-nothing"))
    catalogue = describe_passes()
    by_name = {p.name: p for p in catalogue.passes}
    ours = by_name["do-nothing"]
    assert ours.summary == "Does nothing."
    assert (ours.owner, ours.origin, ours.error) == ("someone", "plug-in", None)
    assert ours.accepts == ("float", "qdq", "integer")
    (times,) = ours.options
    assert (times.name, times.type, times.default, times.help) == (
        "times",
        "whole number from 1 up",
        1,
        "How often.",
    )
    theirs = by_name["onnx-ir.remove-unused-nodes"]
    assert theirs.origin == "onnx-ir"
    assert theirs.summary
    quantize = by_name["quantize"]
    assert (quantize.accepts, quantize.produces) == (("float", "qdq"), "qdq")
    assert [p.pipeline for p in catalogue.presets] == [p.text for p in PRESETS.values()]
    assert [p.name for p in catalogue.presets if p.default] == [DEFAULT]
    assert json.loads(json.dumps(dataclasses.asdict(catalogue)))["passes"]


def test_a_pass_that_does_not_import_hides_no_other(monkeypatch: pytest.MonkeyPatch):
    def broken(name: str) -> type[Pass]:
        raise ImportError("no module named 'missing'")

    monkeypatch.setattr(registry, "_load_built_in", broken)
    by_name = {p.name: p for p in describe_passes().passes}
    assert by_name["quantize"].error == "ImportError: no module named 'missing'"
    assert by_name["onnx-ir.checker"].error is None


def test_every_option_of_every_pass_has_help_and_a_default_that_it_takes():
    for name in pass_names():
        entry = find_pass(name)
        if entry.origin == "built-in":
            made = entry.create({})
            check_options(made)
            assert all(o.help for o in entry.options), name


def test_an_internal_error_of_a_built_in_pass_is_no_user_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(find_pass("quantize").cls, "name", "quantise")
    with pytest.raises(OnnxFheError, match="calls itself") as caught:
        find_pass("quantize")
    assert not isinstance(caught.value, PipelineError)
