"""The text form: what parses, what prints, and where errors point."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_fhe.ir.errors import OnnxFheError, PipelineError
from onnx_fhe.ir.suggest import nearest
from onnx_fhe.passes.framework.base import Pass, option
from onnx_fhe.passes.framework.options import options_of
from onnx_fhe.passes.framework.registry import PassEntry
from onnx_fhe.passes.framework.text import parse
from onnx_fhe.passes.framework.toml_text import read_toml


@dataclass(frozen=True)
class Everything(Pass):
    """A pass with an option of every type."""

    name: ClassVar[str] = "everything"

    flag: bool = option(False, help="A flag.")
    bit_width: int = option(4, help="Bits.", low=1, high=8)
    share: float = option(0.5, help="A share.", low=0, high=1)
    tag: str = option("", help="Free text.")
    kind: str = option("min-max", help="A word.", choices=("min-max", "mse", "none"))
    mode: Literal["exact", "approximate", "none"] = option("exact", help="A word too.")
    limit: int | None = option(None, help="Maybe a number.", low=0)
    target: int | Literal["auto"] = option("auto", help="A number or auto.", low=1)
    sizes: tuple[int, ...] = option((), help="Numbers.", low=0, high=9)
    pair: tuple[float, str] = option((1.0, "a"), help="Two.")
    scales: Mapping[str, float] = option({}, help="Numbers by name.")
    free: Mapping[str, Any] = option({}, help="Anything.")
    layers: Mapping[str, Mapping[str, int | float | str]] = option({}, help="Options of single nodes.")


SPECS = options_of(Everything)
ENTRY = PassEntry("everything", Everything, "tests", "plug-in", SPECS)


def build(text: str) -> Everything:
    """The one pass of a text, as the pipeline builds it."""
    (parsed,) = parse(text)
    try:
        built = ENTRY.create(parsed.options)
    except OnnxFheError as error:
        raise parsed.place.locate(error) from None
    assert isinstance(built, Everything)
    return built


def refusal(text: str) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        build(text)
    return caught.value


def pointed_at(error: PipelineError) -> str:
    """The part of the text that the carets are under."""
    _, line, carets = error.what.split("\n")
    start, end = carets.index("^"), len(carets)
    assert set(carets[start:end]) == {"^"}
    return line[start:end]


def test_names_options_and_order():
    parsed = parse('a, b-c{x=1 y-z=mse "q r"=2.5}\n , d{}')
    assert [(p.name, p.options) for p in parsed] == [
        ("a", {}),
        ("b-c", {"x": 1, "y_z": "mse", "q r": 2.5}),
        ("d", {}),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("+3", 3),
        ("3.0", 3.0),
        (".5", 0.5),
        ("1e-5", 1e-5),
        ("-inf", float("-inf")),
        ("true", True),
        ("false", False),
        ("none", None),
        ("min-max", "min-max"),
        ("3x", "3x"),
        ("/fc1/Gemm", "/fc1/Gemm"),
        ('"3"', "3"),
        ('"none"', "none"),
        (r'"a \"b\" \\ \u00e9 {},"', 'a "b" \\ é {},'),
        ("[]", []),
        ("[1 [a b] {c=d}]", [1, ["a", "b"], {"c": "d"}]),
        ("{}", {}),
        ('{"/fc1/Gemm"={weights=4} b=[]}', {"/fc1/Gemm": {"weights": 4}, "b": []}),
    ],
)
def test_values(text: str, value: object):
    (parsed,) = parse(f"p{{v={text}}}")
    assert parsed.options == {"v": value}
    assert type(parsed.options["v"]) is type(value)


def test_at_stands_for_a_file():
    assert [(p.name, p.is_file) for p in parse('@a/b.toml,c,@"d, e.toml"')] == [
        ("a/b.toml", True),
        ("c", False),
        ("d, e.toml", True),
    ]


@pytest.mark.parametrize(
    ("text", "what", "column"),
    [
        ("", "name of a pass", 0),
        ("  ", "name of a pass", 2),
        ("a,", "name of a pass", 2),
        ("a,,b", "name of a pass", 2),
        ("a b", "does not go on", 2),
        ("a}", "does not go on", 1),
        ("{x=1}", "name of a pass", 0),
        ('"a"', "name of a pass", 0),
        ("@,a", "a file is missing", 1),
        ("@a.toml{x=1}", "does not go on", 7),
        ("a{x}", "has no value", 2),
        ("a{x=}", "a value is missing", 4),
        ("a{x=,}", "a value is missing", 4),
        ("a{x=1,y=2}", "cannot stand here", 5),
        ("a{x=1 x=2}", "given twice", 6),
        ("a{x-y=1 x_y=2}", "given twice", 8),
        ("a{x=[1,2]}", "cannot stand here", 6),
        ("a{x=[1 2}", "cannot stand here", 8),
        ("a{x=[1 2", "never closed", 4),
        ("b,a{x=1", "never closed", 3),
        ('a{x="y}', "quote is never closed", 4),
        (r'a{x="\q"}', "escape does not exist", 5),
        ("a{x=" + "[" * 40, "inside each other", 20),
        ("a{x=" + "9" * 5000 + "}", "too many digits", 4),
    ],
)
def test_grammar_errors_point_at_the_token(text: str, what: str, column: int):
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert what in str(caught.value)
    _, line, carets = caught.value.what.split("\n")
    if len(text) <= 88:
        assert line == "  " + text
        assert carets.index("^") == 2 + column


def test_an_error_shows_the_line_and_the_stretch_around_it():
    text = "first{a=1},\n" + "x" * 200 + "{a=[1,2]},\nlast"
    with pytest.raises(PipelineError) as caught:
        parse(text)
    assert pointed_at(caught.value) == ","
    line = caught.value.what.split("\n")[1]
    assert len(line) < 100
    assert "first" not in line
    assert "last" not in line


def test_options_are_brought_to_their_types():
    built = build("everything{share=1 sizes=[1 2] pair=[2 b] scales={x=3} limit=none mode=none kind=none}")
    assert (built.share, built.sizes, built.pair) == (1.0, (1, 2), (2.0, "b"))
    assert isinstance(built.share, float)
    assert isinstance(built.scales["x"], float)
    assert (built.limit, built.mode, built.kind) == (None, "none", "none")
    made = Everything(bit_width=np.int64(3), sizes=[1, 2], share=np.float32(0.5), flag=np.bool_(True))  # type: ignore[arg-type]
    assert (made.bit_width, made.sizes, made.share, made.flag) == (3, (1, 2), 0.5, True)
    assert type(made.bit_width) is int


def test_mappings_belong_to_the_pass():
    given = {"a": 1.0}
    made = Everything(scales=given)
    given["a"] = 2.0
    assert made.scales == {"a": 1.0}
    assert Everything().scales is not Everything().scales


@pytest.mark.parametrize(
    ("options", "pointed", "allowed", "do"),
    [
        ("bit-widht=3", "bit-widht", "flag, bit-width", "did you mean bit-width?"),
        ("bit_width=true", "true", "whole number from 1 to 8", ""),
        ("bit-width=4.0", "4.0", "whole number from 1 to 8", ""),
        ("bit-width=9", "9", "whole number from 1 to 8", ""),
        ("share=-0.5", "-0.5", "number from 0 to 1", ""),
        ("share=nan", "nan", "number from 0 to 1", ""),
        ("flag=1", "1", "true or false", ""),
        ("flag=yes", "yes", "true or false", ""),
        ("kind=mes", "mes", "min-max or mse or none", "did you mean mse?"),
        ("mode=approximat", "approximat", "exact or approximate or none", "did you mean approximate?"),
        ("tag=3", "3", "text", 'put it in quotes if text is meant: "3"'),
        ("limit=-1", "-1", "whole number from 0 up", ""),
        ("limit=x", "x", "whole number from 0 up or none", ""),
        ("target=atuo", "atuo", "whole number from 1 up or auto", "did you mean auto?"),
        ("target=0", "0", "whole number from 1 up", ""),
        ("sizes=3", "3", "[list of: whole number from 0 to 9]", ""),
        ("sizes=[1 [2] 3]", "[2]", "whole number from 0 to 9", ""),
        ("sizes=[1 2 30]", "30", "whole number from 0 to 9", ""),
        ("pair=[1]", "[1]", "[number text]", ""),
        ("scales={a=1 b=c}", "c", "number", ""),
        ("scales=[1]", "[1]", "{name=number}", ""),
        ("layers={/fc1={bit-widht=3}}", "bit-widht", "flag, bit-width", "did you mean bit-width?"),
        ("layers={/fc1={bit-width=9}}", "9", "whole number from 1 to 8", ""),
        ("layers={/fc1={layers={}}}", "layers", "flag, bit-width", ""),
        ("layers={/fc1=3}", "3", "{node={option=value}}", ""),
    ],
)
def test_a_wrong_option_is_pointed_at(options: str, pointed: str, allowed: str, do: str):
    error = refusal(
        f"everything{{tag=before {options}}}" if "tag=3" not in options else f"everything{{{options}}}"
    )
    assert pointed_at(error) == pointed
    assert error.allowed.startswith(allowed)
    assert error.do == do
    assert error.where.pass_name == "everything"


def test_an_error_names_the_inner_value():
    assert "layers[/fc1].bit-width" in refusal("everything{layers={/fc1={bit-width=9}}}").what
    assert "'sizes[1]'" in refusal("everything{sizes=[1 20]}").what
    with pytest.raises(PipelineError, match="option 'bit-width' does not take this value") as caught:
        Everything(bit_width=9)
    assert caught.value.found == "9"


def test_layers_take_the_options_of_the_pass():
    built = build('everything{layers={"/fc2 b"={bit-width=3 share=1} /fc1={bit_width=2}}}')
    assert built.layers == {"/fc2 b": {"bit_width": 3, "share": 1.0}, "/fc1": {"bit_width": 2}}
    assert built.to_text() == 'everything{layers={/fc1={bit-width=2} "/fc2 b"={bit-width=3 share=1.0}}}'
    assert "given twice" in refusal("everything{layers={/fc1={bit_width=2 bit-width=3}}}").what


def test_only_what_differs_from_the_default_is_printed():
    assert Everything().to_text() == "everything"
    assert (
        Everything(bit_width=3, flag=True, limit=0).to_text() == "everything{flag=true bit-width=3 limit=0}"
    )
    assert str(Everything(tag="none")) == 'everything{tag="none"}'
    assert Everything(tag="1e5").to_text() == 'everything{tag="1e5"}'
    assert Everything(free={"b": True, "a": {"z": None, "y": [1]}}).to_text() == (
        "everything{free={a={y=[1] z=none} b=true}}"
    )


TEXTS = st.text(max_size=8) | st.sampled_from(
    ["none", "true", "inf", "-1", "1e5", "a b", '"', "\\", "/fc1/Gemm"]
)
FLOATS = st.floats(allow_nan=False)
SCALARS = st.booleans() | st.integers() | FLOATS | TEXTS | st.none()
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXTS, v, max_size=3), max_leaves=6
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "flag": st.booleans(),
        "bit_width": st.integers(1, 8),
        "share": st.floats(0, 1),
        "tag": TEXTS,
        "kind": st.sampled_from(["min-max", "mse", "none"]),
        "mode": st.sampled_from(["exact", "approximate", "none"]),
        "limit": st.none() | st.integers(0),
        "target": st.just("auto") | st.integers(1),
        "sizes": st.lists(st.integers(0, 9)).map(tuple),
        "pair": st.tuples(FLOATS, TEXTS),
        "scales": st.dictionaries(TEXTS, FLOATS),
        "free": st.dictionaries(TEXTS, VALUES, max_size=3),
        "layers": st.dictionaries(
            TEXTS,
            st.fixed_dictionaries(
                {}, optional={"bit_width": st.integers(1, 8), "share": st.floats(0, 1), "tag": TEXTS}
            ),
        ),
    },
)


@given(OPTIONS)
def test_printed_passes_parse_back(options: dict[str, Any]):
    made = Everything(**options)
    assert build(made.to_text()) == made
    assert build(made.to_text()).to_text() == made.to_text()


@given(st.text(alphabet='ab-1.{}[]=,@" \n\\', max_size=30) | st.text(max_size=30))
def test_any_text_parses_or_is_refused_with_a_caret(text: str):
    refused = ""
    try:
        parsed = parse(text)
    except PipelineError as error:
        refused = error.what
    assert refused.endswith("^") if refused else parsed


def test_context_is_no_option():
    assert "context" not in {s.name for s in SPECS}
    assert [s.key for s in SPECS][:3] == ["flag", "bit-width", "share"]


def test_a_type_that_text_cannot_hold_is_a_defect_of_the_pass():
    @dataclass(frozen=True)
    class Odd(Pass):
        name: ClassVar[str] = "odd"
        when: bytes = option(b"", help="Bytes.")

    with pytest.raises(OnnxFheError, match=r"Odd\.when"):
        Odd()


def test_toml_holds_a_pipeline(tmp_path: Path):
    file = tmp_path / "p.toml"
    file.write_text(
        '[[pass]]\nname = "everything"\nbit-width = 3\nlimit = "none"\nsizes = [1, 2]\n'
        '[pass.layers."/fc1/Gemm"]\nbit-width = 2\n[[pass]]\nname = "other"\n'
    )
    first, second = read_toml(file)
    assert (second.name, second.options) == ("other", {})
    assert ENTRY.create(first.options) == Everything(
        bit_width=3, limit=None, sizes=(1, 2), layers={"/fc1/Gemm": {"bit_width": 2}}
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("[[pass]\n", "not valid TOML"),
        ("", "holds no pipeline"),
        ('[pass]\nname = "a"\n', "holds no pipeline"),
        ('title = "x"\n[[pass]]\nname = "a"\n', "holds no pipeline"),
        ('pass = ["a"]\n', "number 1 has no name"),
        ('[[pass]]\nname = "a"\n[[pass]]\nbits = 3\n', "number 2 has no name"),
        ('[[pass]]\nname = "a"\nb-c = 1\nb_c = 2\n', "given twice"),
        (b"\xff\xfe", "UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_toml_errors_name_the_file(content: str | bytes | None, what: str, tmp_path: Path):
    file = tmp_path / "p.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PipelineError) as caught:
        read_toml(file)
    assert what in caught.value.what
    assert caught.value.where.file == str(file)


def test_a_wrong_option_in_toml_names_the_table(tmp_path: Path):
    file = tmp_path / "p.toml"
    file.write_text('[[pass]]\nname = "everything"\nsizes = [1, 20]\n')
    (parsed,) = read_toml(file)
    with pytest.raises(PipelineError) as caught:
        ENTRY.create(parsed.options)
    located = parsed.place.locate(caught.value)
    assert "[[pass]] number 1, everything, sizes[1]" in str(located)
    assert str(file) in str(located)


def test_nearest():
    assert nearest("Insert_Rounding", ["quantize", "insert-rounding"]) == "did you mean insert-rounding?"
    assert nearest("xyz", ["quantize"]) == ""


def test_importing_a_pass_base_stays_light():
    code = (
        "import sys; from onnx_fhe.passes.framework.base import Pass; "
        "print([m for m in sys.modules if m.split('.')[0] in ('pydantic', 'hypothesis', 'concrete', 'torch')"
        " or m in ('onnx_fhe.passes.framework.registry', 'onnx_fhe.ir.plugins.loading',"
        " 'onnx_fhe.passes.framework.manager')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
