"""The report: what an artifact remembers for it, its numbers, and the page itself."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnx_fhe
from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.batches import BatchCircuit
from onnx_fhe.ir.errors import ArtifactError, DataError, UserError
from onnx_fhe.manifest import from_json
from onnx_fhe.passes.framework.pipeline import parse_passes
from onnx_fhe.program import Program
from onnx_fhe.record import RECORD_FORMAT
from onnx_fhe.report import page, text
from onnx_fhe.report.advice import advice
from onnx_fhe.report.layers import layers_of, ranges_of
from onnx_fhe.report.measuring import divergence
from onnx_fhe.report.pricing import Pricing, narrowed

PIPELINE = "normalize,quantize{weights=3 activations=4 inputs=4},lower-to-integer,fuse-tlu"
HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}\u202e\x07" + "x" * 300


def pooled(first: str = "conv") -> onnx.ModelProto:
    """A convolution, max-pooling, a residual addition, a dense layer, and a Softmax for the client."""
    random = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        scale = np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array((random.standard_normal(shape) / scale).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name=first, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
        helper.make_node("MaxPool", ["r1"], ["p1"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], name="inner", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "p1"], ["a2"], name="joined"),
        helper.make_node("Relu", ["a2"], ["r2"], name="again"),
        helper.make_node("Flatten", ["r2"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], name="head", transB=1),
        helper.make_node("Softmax", ["logits"], ["classes"], name="softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("image", 1, ["N", 1, 6, 6])],
        [helper.make_tensor_value_info("classes", 1, ["N", 3])],
        [
            constant(n, *s)
            for n, s in {
                "w1": (4, 1, 3, 3),
                "b1": (4,),
                "w2": (4, 4, 3, 3),
                "b2": (4,),
                "w3": (3, 36),
                "b3": (3,),
            }.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def compiled(folder, proto: onnx.ModelProto, rounding: str = "insert-rounding{bits=6}") -> Program:
    """The network above in integers; the reference backend, for it takes no time."""
    file = folder / "pooled.onnx"
    onnx.save(proto, file)
    random = np.random.default_rng(1)
    data = {"image": random.random((48, 1, 6, 6)).astype(np.float32), "labels": random.integers(0, 3, 48)}
    pipeline = f"{PIPELINE},{rounding}" if rounding else PIPELINE
    return onnx_fhe.compile(file, data, pipeline, "reference", accept_loss=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("pooled"), pooled())


def views(program: Program):
    pricing = Pricing(program.integer_model, program.manifest)
    layers = layers_of(program.integer_model, program.manifest, pricing)
    return pricing, layers, ranges_of(program.integer_model, program.manifest, layers)


class Page(HTMLParser):
    """Elements with their attributes, and all text, of a page; refuses what does not nest."""

    VOID = frozenset({"meta", "link", "br", "rect", "circle", "line", "path", "polyline"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_the_record_is_kept_in_the_artifact(program, tmp_path):
    program.save(tmp_path / "a.fhe")
    record = Program.load(tmp_path / "a.fhe").manifest.record
    assert record == program.manifest.record
    assert [n.name for n in record.nodes] == [
        "conv", "relu", "pool", "inner", "joined", "again", "flat", "head", "softmax"
    ]  # fmt: skip
    assert record.operators["Conv"] == 2
    assert {n.where for n in record.nodes if n.name != "softmax"} == {"encrypted"}
    assert record.nodes[-1].where == "client, after"
    assert record.nodes[4].inputs == ("inner", "pool")
    assert record.nodes[0].parameters == 4 * 9 + 4


def test_stages_go_from_the_float_network_to_the_encrypted_one(program):
    stages = program.manifest.record.measured.stages
    assert [s.name for s in stages] == ["float", "integer", "encrypted", "encrypted"]
    assert stages[0].output_error == 0
    assert stages[0].agreement == 1
    assert stages[1].output_error > 0
    assert [s.p_error for s in stages] == [None, None, 1e-5, 1e-2]
    assert all(s.accuracy is not None for s in stages)


def test_calibration_data_stays_in_the_declared_ranges(program):
    tables = program.manifest.record.measured.tables
    assert tables
    assert all(-1e-9 <= t.low < t.high <= 1 + 1e-9 for t in tables)


def test_every_layer_is_followed_and_the_first_best(program):
    found = {x.name: x.divergence for x in program.manifest.record.measured.layers}
    assert list(found) == ["conv", "inner", "head"]
    assert 0 <= found["conv"] < found["head"] < 0.5


def test_an_artifact_without_a_record_loads_and_has_a_report(program, tmp_path):
    old = json.loads(program.manifest.to_json())
    del old["record"]
    manifest = from_json(json.dumps(old).encode())
    assert manifest.record is None
    html = Page(page.render(program.integer_model, manifest))
    assert "After: as it runs" in html.text
    assert "Before: as it was trained" not in html.text


def test_a_newer_record_is_ignored(program):
    newer = json.loads(program.manifest.to_json())
    newer["record"] = {"version": RECORD_FORMAT + 1, "something": "else"}
    assert from_json(json.dumps(newer).encode()).record is None


def test_a_damaged_record_is_refused(program):
    damaged = json.loads(program.manifest.to_json())
    damaged["record"]["nodes"][0]["parameters"] = "many"
    with pytest.raises(ArtifactError, match="damaged"):
        from_json(json.dumps(damaged).encode())


def test_divergence_sees_through_scales_and_offsets_of_channels():
    wanted = np.random.default_rng(0).standard_normal((50, 4, 3, 3))
    scaled = wanted * np.array([2, -3, 0.1, 7]).reshape(1, 4, 1, 1) + np.arange(4).reshape(1, 4, 1, 1)
    assert divergence(wanted, scaled, 1) == pytest.approx(0, abs=1e-12)
    # Channels that are gone are no loss of the others.
    assert divergence(wanted, scaled[:, [3, 0]], 1) == pytest.approx(0, abs=1e-12)


def test_divergence_is_the_share_of_noise():
    random = np.random.default_rng(0)
    wanted = random.standard_normal((20_000, 2))
    noisy = wanted + np.sqrt(0.25) * random.standard_normal(wanted.shape)
    assert divergence(wanted, noisy, -1) == pytest.approx(0.25 / 1.25, abs=0.01)
    assert divergence(wanted, random.standard_normal(wanted.shape), -1) > 0.99


def test_divergence_of_what_cannot_be_compared_is_not_known():
    assert divergence(np.ones((4, 3)), np.ones((4, 3)), -1) is None
    assert divergence(np.ones((4, 3)), np.ones((4, 3, 2)), -1) is None


def test_layers_add_up_to_the_circuit(program):
    pricing, layers, _ = views(program)
    assert [x.name for x in layers] == ["conv", "pool", "joined", "head"]
    assert sum(x.bootstraps for x in layers) == program.statistics.programmable_bootstraps
    assert sum(x.seconds for x in layers) == pytest.approx(pricing.seconds, rel=1e-6)
    assert sum(x.share for x in layers) == pytest.approx(1)
    by_name = {x.name: x for x in layers}
    assert by_name["pool"].is_maximum
    assert by_name["conv"].channels == 4
    assert by_name["conv"].weight_bits == 3
    assert by_name["head"].bootstraps == 0


def test_weights_are_as_wide_as_without_the_gain_that_fills_a_range(tmp_path):
    filled = compiled(tmp_path, pooled(), "insert-rounding{bits=4 range-fill=full}")
    assert {x.name: x.weight_bits for x in views(filled)[1]}["conv"] == 3


def test_narrowed_models_have_tables_of_that_many_bits(program):
    found = {c.name: c for c in estimate(narrowed(program.integer_model, {"conv": 3})).layers}
    assert found["conv"].table_bits == 3
    before = {c.name: c for c in estimate(program.integer_model).layers}
    assert found["joined"].table_bits == before["joined"].table_bits
    assert (
        Pricing(program.integer_model, program.manifest).with_bits({"conv": 5})[0] < views(program)[0].seconds
    )


def test_advice_says_what_max_pooling_costs(program):
    pricing, layers, ranges = views(program)
    (found,) = [a for a in advice(layers, ranges, program.manifest, pricing) if "pooling" in a.title]
    pool = next(x for x in layers if x.name == "pool")
    assert found.bootstraps == pool.bootstraps
    share = pool.bootstraps / sum(x.bootstraps for x in layers)
    assert text.whole_percent(share) in found.why
    assert 0 < found.seconds < pricing.seconds


def test_advice_names_wide_tables_and_its_pipelines_parse(program):
    pricing, layers, ranges = views(program)
    found = advice(layers, ranges, program.manifest, pricing)
    wide = next(a for a in found if a.title == "Round to 5 bits before conv")
    (changed,) = parse_passes(wide.how)
    assert changed.bits == 6
    assert changed.layers == {"conv": 5}
    assert wide.share == pytest.approx(wide.seconds / pricing.seconds)
    assert list(found[:-1]) == sorted(found[:-1], key=lambda a: -a.seconds)
    for one in found:
        if one.how and not one.how.startswith("--"):
            assert parse_passes(one.how)


def test_advice_says_what_exact_rounding_costs(tmp_path):
    exact = compiled(tmp_path, pooled(), "insert-rounding{bits=5 mode=exact}")
    pricing, layers, ranges = views(exact)
    found = next(a for a in advice(layers, ranges, exact.manifest, pricing) if "approximately" in a.title)
    rounded = [x for x in layers if x.exact]
    assert found.bootstraps == sum(x.bootstraps - x.lookups for x in rounded) > 0
    assert parse_passes(found.how)[0].mode == "approximate"


def test_advice_says_when_a_table_has_room_that_no_sample_uses(program):
    pricing, layers, ranges = views(program)
    roomy = tuple(dataclasses.replace(r, observed=(0.0, 0.2)) if r.layer == 0 else r for r in ranges)
    found = advice(layers, roomy, program.manifest, pricing)
    (one,) = [a for a in found if a.title == "Declare narrower ranges"]
    assert "2 bits" in one.why.replace(text.THIN, " ")
    assert not [a for a in advice(layers, ranges, program.manifest, pricing) if a.title == one.title]


def test_the_page_holds_together(program):
    html = page.render(program.integer_model, program.manifest)
    found = Page(html)
    ids = [a["id"] for _, a in found.elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for t, a in found.elements if t == "a"]
    assert {link[1:] for link in links} <= set(ids)
    levels = [int(t[1]) for t, _ in found.elements if t in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert "\\u" not in found.text
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    # What a chart shows stands beside it in words, or in its label.
    for tag, attributes in found.elements:
        if tag == "svg":
            assert (
                attributes.get("aria-hidden") == "true"
                or attributes.get("aria-label")
                or "viewbox" in attributes
            )
    assert sum(t == "caption" for t, _ in found.elements) == sum(t == "table" for t, _ in found.elements)


def test_the_page_shows_what_calls_of_several_samples_take(program):
    assert "Samples a call" not in page.render(program.integer_model, program.manifest)
    found = dataclasses.replace(program.manifest.statistics, complexity=1e9)
    several = tuple(BatchCircuit(n, found) for n in (4, 16))
    manifest = dataclasses.replace(program.manifest, statistics=found, batches=several)
    shown = Page(page.render(program.integer_model, manifest)).text.partition("Samples a call")[2]
    for samples in (1, 4, 16):
        bootstraps = text.count(samples * found.programmable_bootstraps).replace(text.THIN, " ")
        assert f" {samples} {bootstraps} " in shown, samples


def test_the_page_loads_nothing_and_runs_nothing(program):
    found = Page(page.render(program.integer_model, program.manifest))
    assert not {"script", "iframe", "object", "embed", "img", "form"} & {t for t, _ in found.elements}
    for tag, attributes in found.elements:
        assert not [k for k in attributes if k.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    policy = [a["content"] for t, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_the_page_says_what_runs_where(program):
    shown = Page(page.render(program.integer_model, program.manifest)).text
    for phrase in (
        "In the clear, on the client",
        "Encrypted, on the server",
        "reads inner and pool",
        "Softmax",
    ):
        assert phrase in shown
    assert "the backend reference computes in the clear" in shown


def test_hostile_names_are_text(tmp_path):
    hostile = compiled(tmp_path, pooled(HOSTILE))
    manifest = dataclasses.replace(
        hostile.manifest,
        source=dataclasses.replace(hostile.manifest.source, file=HOSTILE),
        notes=(HOSTILE,),
        packages={HOSTILE: HOSTILE},
    )
    html = page.render(hostile.integer_model, manifest)
    plain = page.render(hostile.integer_model, dataclasses.replace(manifest, notes=("a note",)))
    found = Page(html)
    assert "script" not in {t for t, _ in found.elements}
    assert "img" not in {t for t, _ in found.elements}
    assert "{{7*7}}" in found.text
    assert "\u202e" not in html
    assert "\x07" not in html
    # The same elements as with a name that means no harm.
    assert Counter(t for t, _ in found.elements) == Counter(t for t, _ in Page(plain).elements)


def test_the_command_repeats_the_pipeline(program):
    line = page.command(program.manifest)
    assert line.startswith("onnx-fhe compile pooled.onnx --calibration ")
    assert program.manifest.pipeline in line
    assert "--p-error 1e-05" in line
    assert "--backend reference" in line


def test_a_sound_circuit_is_said_to_be_safe(tmp_path):
    file = tmp_path / "pooled.onnx"
    onnx.save(pooled(), file)
    data = np.random.default_rng(1).random((32, 1, 6, 6)).astype(np.float32)
    sound = onnx_fhe.compile(
        file, data, f"{PIPELINE},insert-rounding{{bits=6}}", "reference", range_mode="sound", accept_loss=True
    )
    assert all(r.is_safe for r in views(sound)[2])
    assert "No input can overflow." in Page(page.render(sound.integer_model, sound.manifest)).text


def test_other_data_is_measured_and_compared_with_the_network(digits_mlp, tmp_path):
    program = onnx_fhe.compile(digits_mlp.model, digits_mlp.calibration, PIPELINE, "reference")
    program.report(tmp_path / "r.html", data=digits_mlp.test, model=digits_mlp.model)
    shown = Page((tmp_path / "r.html").read_text()).text
    assert "digits_mlp.test.npz" in shown
    assert "original network 9" in shown
    program.report(tmp_path / "s.html", data=digits_mlp.test)
    assert "The original network is not known here" in Page((tmp_path / "s.html").read_text()).text


def test_another_network_is_refused(program, digits_mlp, tmp_path):
    data = np.zeros((4, 1, 6, 6), np.float32)
    with pytest.raises(UserError, match="not the network that was compiled"):
        program.report(tmp_path / "r.html", data=data, model=digits_mlp.model)
    with pytest.raises(UserError, match="needs data"):
        program.report(tmp_path / "r.html", model=digits_mlp.model)
    with pytest.raises(DataError):
        program.report(tmp_path / "r.html", data=np.zeros((4, 2), np.float32))
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0123, "12.3 ms"),
        (0.4567, "457 ms"),
        (2.345, "2.3 s"),
        (34.56, "34.6 s"),
        (600, "10 min"),
        (0, "0 s"),
        (0.99999, "1 s"),
    ],
)
def test_times_have_two_or_three_digits(value, shown):
    assert text.seconds(value).replace(text.THIN, " ") == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0, "100 %"),
        (0.9999, "> 99.9 %"),
        (0.984, "98.4 %"),
        (0.0052, "0.52 %"),
        (0, "0 %"),
        (1e-6, "< 0.01 %"),
        (0.01, "1.0 %"),
    ],
)
def test_shares_never_round_to_all_or_nothing(value, shown):
    assert text.percent(value).replace(text.THIN, " ") == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(1e-5, "1 in 100 000"), (0.00027, "1 in 3 700"), (0.01, "1 in 100"), (0, "none")]
)
def test_chances_are_frequencies(value, shown):
    assert text.chance(value).replace(text.THIN, " ") == shown


def test_long_names_are_cut_in_their_middle():
    found = text.name("start" + "x" * 1000 + "end")
    assert found.startswith("start")
    assert found.endswith("end")
    assert len(found) <= text.MAX_NAME_CHARACTERS + 1
