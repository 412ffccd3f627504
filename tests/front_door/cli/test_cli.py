"""The command line: every command on a real model, what it prints, and its exit statuses."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest

from onnx_fhe.cli import main
from onnx_fhe.passes.framework.presets import PRESETS

PIPELINE = "quantize{weights=3 activations=3 inputs=3},lower-to-integer,fuse-tlu,insert-rounding{bits=4}"

PLUGIN = '''
import time
from dataclasses import dataclass
from typing import ClassVar
from onnx_fhe.passes import Pass, option, register_pass

@register_pass
@dataclass(frozen=True)
class Chatter(Pass):
    """Prints, and then does as it is told."""
    name: ClassVar[str] = "chatter"
    sleep: float = option(0.0, help="Seconds.")
    fail: bool = option(False, help="Raise.")
    def run(self, model, context):
        print("chatter is here", flush=True)
        context.notes.append("chatter was here")
        time.sleep(self.sleep)
        if self.fail:
            raise ValueError("chatter fell over")
        return False
'''


@pytest.fixture
def cli(capsys):
    """Runs the command line in this process: (status, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return run


def command(*arguments, **options):
    """The command line in a process of its own."""
    line = [sys.executable, "-m", "onnx_fhe", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, **options)


def data_of(done):
    """The one object that a command printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def data_here(folder, *arguments):
    """The same of a command in this process, with all that native code prints there, too."""
    path, kept = folder / "stdout.json", os.dup(1)
    with path.open("w") as file, contextlib.redirect_stdout(file):
        os.dup2(file.fileno(), 1)
        try:
            with pytest.raises(SystemExit) as stopped:
                main([str(a) for a in arguments])
        finally:
            os.dup2(kept, 1)
            os.close(kept)
    assert stopped.value.code == 0
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def compiled(digits_mlp, tmp_path_factory):
    """(file, what `compile --json` printed, seconds that it took)."""
    folder = tmp_path_factory.mktemp("compiled")
    out = folder / "digits.fhe"
    began = time.perf_counter()
    found = data_here(
        folder, "compile", digits_mlp.model, "--calibration", digits_mlp.calibration, "-p", PIPELINE, "-o",
        out, "--json", "--self-test", "0",
    )  # fmt: skip
    return out, found, time.perf_counter() - began


@pytest.fixture(scope="module")
def quick(digits_mlp, tmp_path_factory):
    """The same through the reference backend."""
    folder = tmp_path_factory.mktemp("quick")
    out = folder / "digits.fhe"
    found = data_here(
        folder, "compile", digits_mlp.model, "--calibration", digits_mlp.calibration, "-p", PIPELINE, "-o",
        out, "--json", "--backend", "reference",
    )  # fmt: skip
    return out, found


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "chatter.py"
    file.write_text(PLUGIN)
    return file


def test_help_comes_at_once():
    """By the processor time of the command: a busy machine must not fail this."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = command("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0
    assert min(seconds) < 0.5
    for name in ("inspect", "passes", "opt", "compile", "run"):
        assert name in done.stdout


def test_the_installed_command_is_this_one():
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="onnx-fhe")
    assert script.load() is main


@pytest.mark.parametrize("name", ["inspect", "passes", "opt", "compile", "run"])
def test_each_command_has_help(cli, name):
    status, out, _ = cli(name, "--help")
    assert status == 0
    assert "--json" in out
    assert "--plugin" in out


def test_the_version_is_told(cli):
    status, out, _ = cli("--version")
    assert status == 0
    assert out.startswith("onnx-fhe ")


def test_inspect_says_what_is_in_a_model(cli, digits_cnn):
    status, out, err = cli("inspect", digits_cnn.model)
    assert (status, err) == (0, "")
    for text in ("/0/Conv", "encrypted", "supported: yes, with 224", "(N, 1, 8, 8)"):
        assert text in out
    found = json.loads(cli("inspect", digits_cnn.model, "--json")[1])
    assert found["level"] == "float"
    assert found["programmable_bootstraps"] == 224
    assert found["operators"] == {"Conv": 3, "Relu": 3, "Flatten": 1, "Gemm": 1}
    assert [x["layer"] for x in found["lookups"]] == ["/0/Conv", "/2/Conv", "/4/Conv"]
    assert found["inputs"] == [{"name": "input", "shape": ["N", 1, 8, 8], "dtype": "float"}]


def test_inspect_lists_what_is_not_supported(cli, tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}, int64[1] k = {2}>
    { [one] a = Gemm (x, w) [most] b, i = TopK (a, k) [two] y = Gemm (b, w) }
    """
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    status, out, err = cli("inspect", path)
    assert status == 1
    assert err.startswith("error: this model cannot be compiled")
    assert str(path) in err
    assert "'most', TopK" in err
    assert "supported: no" in out
    assert "'most' (TopK)" in out
    assert "do:" in out
    found = json.loads(cli("inspect", path, "--json")[1])
    assert not found["supported"]
    assert found["findings"][0]["node"] == "most"


def test_inspect_takes_an_artifact(cli, quick):
    file, report = quick
    status, out, _ = cli("inspect", file)
    assert status == 0
    assert report["pipeline"] in out
    found = json.loads(cli("inspect", file, "--json")[1])
    assert found["level"] == "artifact"
    assert found["layers"] == report["layers"]
    assert found["packages"]["onnx-fhe"]


def test_passes_lists_everything_and_one(cli):
    status, out, _ = cli("passes")
    assert status == 0
    for name in ("normalize", "quantize", "onnx-ir.checker", *PRESETS):
        assert name in out
    found = json.loads(cli("passes", "--json")[1])
    assert {"passes", "presets", "broken"} == set(found)
    assert [p["name"] for p in found["presets"] if p["default"]] == ["balanced"]
    assert "bits" in cli("passes", "insert-rounding")[1]
    one = json.loads(cli("passes", "quantize", "--json")[1])
    assert "weights" in {o["name"] for o in one["options"]}
    assert PRESETS["balanced"].text in cli("passes", "balanced")[1]
    assert json.loads(cli("passes", "balanced", "--json")[1])["pipeline"] == PRESETS["balanced"].text


def test_opt_saves_whatever_level_the_pipeline_ends_at(cli, digits_mlp, tmp_path):
    out, dumped = tmp_path / "out.onnx", tmp_path / "stages"
    common = ["opt", digits_mlp.model, "-p", f"normalize,{PIPELINE}", "--calibration", digits_mlp.calibration]
    status, said, err = cli(
        *common, "-o", out, "--stop-after", "quantize", "--print-between-passes", "--time-passes", "--check",
        "--dump-dir", dumped,
    )  # fmt: skip
    assert status == 0
    assert "qdq level" in said
    assert "total" in said, "the times"
    assert "same argmax" in said, "the differences"
    assert "// after normalize" in err
    assert [f.name for f in sorted(dumped.iterdir())] == [
        "00-input.onnx",
        "01-normalize.onnx",
        "02-quantize.onnx",
    ]
    onnx.checker.check_model(onnx.load(out))
    status, said, _ = cli(*common, "-o", out, "--json", "--check")
    found = json.loads(said)
    assert found["level"] == "integer"
    assert found["passes"][0]["name"] == "normalize"
    assert len(found["differences"]) == len(found["passes"])
    assert json.loads(cli("inspect", out, "--json")[1])["level"] == "integer"


def test_opt_checks_on_random_inputs_without_calibration(cli, digits_mlp, tmp_path):
    status, said, _ = cli(
        "opt", digits_mlp.model, "-p", "normalize", "-o", tmp_path / "o.onnx", "--check", "--json"
    )
    assert status == 0
    (difference,) = json.loads(said)["differences"]
    assert difference["output"] == "logits"


def test_compile_says_what_it_costs(compiled):
    out, found, seconds = compiled
    assert out.is_file()
    assert seconds < 30
    assert found["programmable_bootstraps"] == 64
    assert 1e9 < found["complexity"] < 2e10
    assert found["max_table_bits"] == 4
    assert 4 <= found["mean_accumulator_bits"] <= found["max_accumulator_bits"] <= 16
    assert found["p_error"] == 1e-5
    assert 0 < found["global_p_error"] < 0.01
    assert (found["range_mode"], found["range_margin"], found["seed"]) == ("observed", "auto", 0)
    assert found["pipeline"].startswith("normalize,quantize")
    assert found["backend"] == "concrete"
    keys = {"name", "operator", "accumulator_bits", "table_bits", "programmable_bootstraps"}
    assert all(keys == set(layer) for layer in found["layers"])
    assert sum(layer["programmable_bootstraps"] for layer in found["layers"]) == 64
    stages = {"load", "passes", "circuit", "compare", "fidelity", "self-test", "record", "save"}
    assert stages == set(found["seconds"])
    assert isinstance(found["notes"], list)


def test_compile_tells_people_the_chosen_error(cli, digits_mlp, tmp_path):
    status, out, _ = cli(
        "compile", digits_mlp.model, "--calibration", digits_mlp.calibration, "-p", PIPELINE, "-o",
        tmp_path / "x.fhe", "--backend", "reference", "--range-mode", "sound", "--seed", 3,
    )  # fmt: skip
    assert status == 0
    assert "1e-05 for each lookup" in out
    assert "sound" in out
    assert "\x1b" not in out


def test_run_in_the_clear_and_simulated(compiled, digits_mlp, tmp_path):
    outputs = tmp_path / "out.npz"
    clear = data_here(tmp_path, "run", compiled[0], "--data", digits_mlp.test, "--json", "-o", outputs)
    assert (clear["mode"], clear["samples"], clear["agreement"], clear["clipped"]) == ("clear", 450, 1.0, 0)
    assert clear["accuracy"] > 0.85
    assert clear["overflows"]["values"] < 50
    assert clear["samples_per_second"] > 0
    logits = np.load(outputs)["logits"]
    assert (logits.argmax(axis=1) == digits_mlp.labels).mean() == pytest.approx(clear["accuracy"])
    simulated = ["--mode", "simulate", "--limit", 60, "--json"]
    found = data_here(tmp_path, "run", compiled[0], "--data", digits_mlp.test, *simulated)
    assert (found["mode"], found["samples"]) == ("simulate", 60)
    assert found["accuracy"] > 0.8
    assert found["agreement"] > 0.85
    assert found["seconds_per_sample"] > 0


@pytest.mark.usefixtures("small_keys")
def test_run_encrypted_times_each_step(cli, tmp_path):
    proto = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    tiny (float[N, 2] x) => (float[N, 2] y)
    <float[2, 2] w = {0.5, -1.0, 1.5, 0.25}>
    { [one] a = Gemm (x, w) [act] b = Relu (a) [two] y = Gemm (b, w) }
    """)
    model, file, data = tmp_path / "t.onnx", tmp_path / "t.fhe", tmp_path / "t.npz"
    onnx.save(proto, model)
    np.savez(
        data, x=np.random.default_rng(0).uniform(0, 1, (50, 2)).astype(np.float32), labels=np.zeros(50, int)
    )
    status, _, err = cli(
        "compile", model, "--calibration", data, "-p", PIPELINE, "-o", file, "--self-test", "0"
    )
    assert status == 0, err
    done = command("run", file, "--data", data, "--mode", "encrypted", "--limit", 1, "--json")
    found = data_of(done)
    assert done.stderr == "", "no bars and no warnings in a pipe"
    assert (found["mode"], found["samples"]) == ("encrypted", 1)
    assert set(found["seconds_per_sample"]) == {"keygen", "encrypt", "evaluate", "decrypt"}
    assert all(s > 0 for s in found["seconds_per_sample"].values())
    assert found["agreement"] in (0.0, 1.0)


def test_run_clips_and_says_so(cli, quick, digits_mlp, tmp_path):
    array = digits_mlp.test_data["input"][:10].copy()
    array[3, :5] = 50.0
    array[4, 0] = -9.0
    np.savez(tmp_path / "far.npz", input=array)
    status, out, err = cli("run", quick[0], "--data", tmp_path / "far.npz", "--json")
    assert status == 0
    found = json.loads(out)
    assert (found["clipped"], found["clipped_samples"], found["accuracy"]) == (6, 2, None)
    assert "warning: 6 input values in 2 samples" in err
    status, out, err = cli("run", quick[0], "--data", tmp_path / "far.npz")
    assert "6 input values in 2 samples" in out


def test_nothing_is_coloured_in_a_pipe(compiled, digits_mlp):
    for arguments in (["inspect", digits_mlp.model], ["inspect", compiled[0]], ["passes"]):
        done = command(*arguments, env={**os.environ, "CLICOLOR": "1"})
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr


def test_names_from_files_cannot_act_on_the_terminal(cli, tmp_path):
    proto = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}>
    { [one] a = Gemm (x, w) [act] b = Relu (a) [two] y = Gemm (b, w) }
    """)
    proto.graph.node[0].name = "\x1b[2J\x1b]0;evil\x07"
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    for extra in ([], ["--json"]):
        status, out, err = cli("inspect", path, *extra)
        assert status == 0
        assert not {"\x1b", "\x07"} & set(out + err)
        assert "evil" in out


def test_a_plugin_by_file_prints_beside_the_json(plugin, digits_mlp, tmp_path):
    done = command("passes", "chatter", "--plugin", plugin, "--json")
    assert data_of(done)["origin"] == "plug-in"
    out = tmp_path / "o.onnx"
    done = command("opt", digits_mlp.model, "-p", "chatter", "--plugin", plugin, "-o", out, "--json")
    found = data_of(done)
    assert found["notes"] == ["chatter was here"]
    assert "chatter is here" in done.stderr


def test_a_defect_is_told_from_a_fault(plugin, digits_mlp, tmp_path):
    out = tmp_path / "o.onnx"
    arguments = ["opt", digits_mlp.model, "-p", "chatter{fail=true}", "--plugin", plugin, "-o", out, "--json"]
    done = command(*arguments)
    assert done.returncode == 3
    assert done.stdout == ""
    assert "chatter fell over" in done.stderr
    assert "--debug" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    done = command(*arguments, "--debug")
    assert done.returncode == 3
    assert "Traceback" in done.stderr


def test_ctrl_c_ends_it_tidily(plugin, digits_mlp, tmp_path):
    out = tmp_path / "new" / "o.onnx"
    out.parent.mkdir()
    line = ["opt", digits_mlp.model, "-p", "chatter{sleep=60}", "--plugin", plugin, "-o", out]
    running = subprocess.Popen(
        [sys.executable, "-m", "onnx_fhe", *map(str, line)], stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    for text in running.stderr:
        if "chatter is here" in text:
            break
    running.send_signal(signal.SIGINT)
    rest = running.stderr.read()
    assert running.wait(20) == 130
    assert "Traceback" not in rest
    assert not list(out.parent.iterdir())
