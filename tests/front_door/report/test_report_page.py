"""The report in a real browser, on the command line, and with the frontier of a search."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import onnx_fhe
from onnx_fhe.cli import main
from onnx_fhe.report import page, scatter, sections
from onnx_fhe.tuning.frontier import Frontier, axes_of, non_dominated
from onnx_fhe.tuning.goal import Goal
from onnx_fhe.tuning.points import Measured, Point

TESTS = Path(__file__).resolve().parents[2]
PIPELINE = (
    "normalize,quantize{weights=3 activations=4 inputs=4},lower-to-integer,fuse-tlu,insert-rounding{bits=4}"
)
LONG = "a/very/long/name/" * 12
HOSTILE = "</title><script>document.title='gone'</script>" + LONG


@pytest.fixture(scope="module")
def program(digits_mlp, tmp_path_factory):
    """A network with names that are long, and that mean harm."""
    model = onnx_fhe.load(digits_mlp.model)
    for index, node in enumerate(model.graph):
        node.name = f"{HOSTILE}{index}" if index % 2 == 0 else f"{LONG}{index}"
    return onnx_fhe.compile(model, digits_mlp.calibration, PIPELINE, "reference")


def search(best: int | None = 2) -> Frontier:
    """Forty circuits; the faster ones are less accurate, and some are neither."""
    random = np.random.default_rng(0)
    points = []
    for number in range(40):
        seconds = float(10 ** random.uniform(-1, 1))
        score = 0.97 - 0.05 / (1 + seconds) * float(random.uniform(0.5, 3))
        points.append(_point(number, seconds, score))
    axes = axes_of(Goal(max_accuracy_drop=0.01))
    front = non_dominated(points, axes, True)
    chosen = front[best] if best is not None else None
    measured = Measured(0.95, 200, 1.0, 1.5, 3, 1.0, 2.0, 10.0, 30, 2e9, 10**8)
    points = [dataclasses.replace(p, measured=measured) if p.number == chosen else p for p in points]
    return Frontier(
        "digits.onnx",
        "accuracy",
        True,
        0.97,
        300,
        Goal(max_accuracy_drop=0.01),
        axes,
        tuple(points),
        front=front,
        best=chosen,
        nearest=None if best is not None else front[-1],
        unmet=() if best is not None else ("max-latency is missed by 40 %",),
    )


def _point(number: int, seconds: float, score: float) -> Point:
    return Point(
        number=number,
        pipeline=f"quantize{{weights={number % 6 + 2}}}",
        p_error=1e-5,
        seed=0,
        range_mode="observed",
        range_margin=0.2,
        score=score,
        score_error=0.008,
        seconds=seconds,
        samples_per_second=2 / seconds,
        key_bytes=10**8,
        bootstraps=50,
        complexity=seconds * 4e9,
        overflows=0,
        sha256="0" * 64,
    )


def test_the_frontier_is_drawn_as_the_search_found_it():
    found = search()
    latency, throughput = scatter.plots(found)
    assert {d.point.number for d in latency.dots if d.on_front} == set(found.front)
    assert [d.point.number for d in latency.dots if d.chosen] == [found.best]
    assert len(latency.dots) + latency.outside == len(found.points)
    for dot in (*latency.dots, *throughput.dots):
        assert scatter.LEFT <= dot.x <= scatter.RIGHT
        assert scatter.TOP <= dot.y <= scatter.BOTTOM
    by_number = {d.point.number: d for d in latency.dots}
    for a in by_number.values():
        for b in by_number.values():
            if a.point.seconds < b.point.seconds:
                assert a.x < b.x
            if a.point.score < b.point.score:
                assert a.y > b.y
    edge = [tuple(map(float, pair.split(","))) for pair in latency.edge.split()]
    # From left to right it only rises: no point of it is dominated.
    assert all(b[1] < a[1] for a, b in pairwise(edge))
    assert len(latency.x_ticks) >= 3
    assert len(latency.y_ticks) >= 3


def test_a_metric_that_is_better_when_smaller_is_drawn_too():
    found = dataclasses.replace(search(None), metric="mean error", higher_is_better=False)
    assert all(scatter.TOP <= d.y <= scatter.BOTTOM for plot in scatter.plots(found) for d in plot.dots)


def test_a_search_of_one_point_has_a_chart():
    one = _point(0, 1.0, 0.9)
    found = dataclasses.replace(search(), points=(one,), front=(0,), best=0)
    (latency, _) = scatter.plots(found)
    assert len(latency.dots) == 1
    assert np.isfinite([latency.dots[0].x, latency.dots[0].y]).all()


def test_the_page_shows_the_chosen_point_and_no_dominated_one(program):
    found = search()
    html = page.render(program.integer_model, program.manifest, frontier=found)
    table = html[html.index("On the frontier") : html.index("Pipelines of these circuits")]
    assert [int(n) for n in re.findall(r'<th scope="row">(\d+)', table)] == list(found.front)
    assert f"<strong>Chosen: trial {found.best}</strong>" in html
    assert "measured" in html


def test_sections_are_files_of_their_own_and_all_of_them_are_shown():
    folder = Path(sections.__file__).parent / "templates" / "sections"
    assert {f.stem for f in folder.iterdir()} == {s.name for s in sections.SECTIONS}
    for section in sections.SECTIONS:
        assert f'<h2 id="{section.name}">' in (folder / f"{section.name}.html").read_text()


def test_a_section_is_a_file_and_a_line(program, monkeypatch):
    mine = sections.Section("mine", "Notes in short", needs="manifest")
    absent = sections.Section("absent", "Nothing", needs="frontier")
    monkeypatch.setattr(sections, "SECTIONS", (*sections.SECTIONS, mine, absent))
    read = page._template

    def template(name: str) -> str:
        own = '<h2 id="mine">Notes in short</h2><p>{{ manifest.notes|length }} notes</p>'
        return own if name == "sections/mine.html" else read(name)

    monkeypatch.setattr(page, "_template", template)
    page._environment.cache_clear()
    try:
        html = page.render(program.integer_model, program.manifest)
    finally:
        page._environment.cache_clear()
    assert '<li><a href="#mine">Notes in short</a></li>' in html
    assert f"<p>{len(program.manifest.notes)} notes</p>" in html
    assert "absent" not in html


def test_constraints_that_nothing_holds_are_said(program):
    html = page.render(program.integer_model, program.manifest, frontier=search(None))
    assert "No circuit holds every constraint." in html
    assert "max-latency is missed by 40 %" in html


def _run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


def test_the_command_writes_the_page(program, tmp_path, capsys):
    program.save(tmp_path / "a.fhe")
    (tmp_path / "front.json").write_bytes(search().to_json())
    out = tmp_path / "a.html"
    given = ["--frontier", tmp_path / "front.json", "--json"]
    assert _run("report", tmp_path / "a.fhe", "-o", out, *given) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(out), "bytes": out.stat().st_size}
    assert out.read_text().startswith("<!doctype html>")
    assert "The trade-off" in out.read_text()


def test_compile_writes_the_page_too(digits_mlp, tmp_path):
    out = tmp_path / "a.html"
    options = ["--backend", "reference", "-p", PIPELINE, "-o", tmp_path / "a.fhe", "--report", out]
    assert _run("compile", digits_mlp.model, "--calibration", digits_mlp.calibration, *options) == 0
    assert "digits_mlp.onnx" in out.read_text()


def test_mistakes_are_said_without_a_traceback(program, digits_mlp, tmp_path, capsys):
    program.save(tmp_path / "a.fhe")
    out = tmp_path / "a.html"
    (tmp_path / "broken.json").write_text("{}")
    for arguments, what in (
        (["report", tmp_path / "none.fhe", "-o", out], "there is no such artifact"),
        (["report", digits_mlp.model, "-o", out], "no artifact"),
        (["report", tmp_path / "a.fhe", "-o", tmp_path / "no" / "a.html"], "folder"),
        (["report", tmp_path / "a.fhe", "-o", out, "--frontier", tmp_path / "broken.json"], "no result"),
        (["report", tmp_path / "a.fhe", "-o", out, "--frontier", tmp_path / "none.json"], "cannot be read"),
        (["report", tmp_path / "a.fhe", "-o", out, "--model", digits_mlp.model], "--model without --data"),
        (["report", tmp_path / "a.fhe", "-o", out, "--machine", tmp_path / "broken.json"], "profile"),
    ):
        assert _run(*arguments) == 1, arguments
        said = capsys.readouterr().err
        assert said.startswith("error:")
        assert what in said, said
        assert "Traceback" not in said
        assert not out.exists()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium."""
    spec = importlib.util.spec_from_file_location("chromium", TESTS / "browser" / "chromium.py")
    assert spec is not None
    assert spec.loader is not None
    chromium = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chromium)
    program = chromium.find()
    if program is None:
        pytest.skip("no Chromium on this machine (apt install chromium)")
    with chromium.Browser(program, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def written(program, tmp_path_factory):
    """The page with everything on it."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    program.report(file, frontier=search())
    return file


# Contrast as WCAG 2 defines it, of every piece of text against what is painted behind it.
CONTRAST = """(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => v / 255 <= .03928 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.map(linear);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > .99) return c.slice(0, 3); } return [255, 255, 255]; };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.tagName === 'TITLE' || e.tagName === 'title') continue;
    const style = getComputedStyle(e), drawn = e instanceof SVGElement;
    const a = light(parse(drawn ? style.fill : style.color).slice(0, 3)), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([walker.currentNode.data.trim().slice(0, 40), ratio]);
  }
  return low;
})()"""

# The heads of stacked tables are there for screen readers only; an svg scales or clips by itself.
OUTSIDE = """[...document.querySelectorAll('main *, header *')]
  .filter(e => !e.closest('thead') && !e.closest('svg'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_a_browser_shows_it(browser, written, width, dark):
    browser.open(written, width, dark=dark)
    told = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
    assert not [e for e in browser.events if e["method"] in told]
    asked = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert browser.evaluate("document.title").endswith("onnx-fhe report")
    assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    # A telephone would zoom out to show what is too wide.
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate(OUTSIDE) == []
    assert browser.evaluate(CONTRAST) == []
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 384) is dark


def test_the_keyboard_reaches_every_link_and_shows_where_it_is(browser, written):
    browser.open(written, 1280)
    reached = []
    count = browser.evaluate("document.querySelectorAll('a, summary, [tabindex=\"0\"]').length")
    for _ in range(count):
        for kind in ("keyDown", "keyUp"):
            browser.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        shown = "getComputedStyle(document.activeElement).outlineStyle"
        reached.append(browser.evaluate(f"[document.activeElement.tagName, {shown}]"))
    assert [tag for tag, _ in reached].count("A") == browser.evaluate("document.querySelectorAll('a').length")
    assert all(style == "solid" for _, style in reached), reached


def test_on_paper_it_is_dark_on_light(browser, written):
    browser.open(written, 1280, dark=True)
    theme = {"name": "prefers-color-scheme", "value": "dark"}
    browser.ask("Emulation.setEmulatedMedia", media="print", features=[theme])
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.evaluate(CONTRAST) == []
    assert len(browser.ask("Page.printToPDF", printBackground=True)["data"]) > 10_000


def test_the_browser_would_see_what_is_wrong(browser, tmp_path):
    wrong = tmp_path / "wrong.html"
    wrong.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><title>x</title>"
        "<main><p style='color:#999;width:900px'>pale and wide</p></main>"
        "<script>console.error('seen')</script>"
    )
    browser.open(wrong, 390)
    assert [e for e in browser.events if e["method"] == "Runtime.consoleAPICalled"]
    assert browser.evaluate(OUTSIDE)
    assert browser.evaluate(CONTRAST)
