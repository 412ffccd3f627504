"""A side that is installed alone: what is missing is said by the name of its extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
"""
COMPILER = ("onnx", "onnx_ir", "onnxscript", "networkx", "jinja2", "threadpoolctl", "tomli")
TUNER = ("optuna", "dask", "distributed", "cloudpickle")
SERVICE = ("fastapi", "uvicorn", "starlette", "prometheus_client", "anyio", "httpx")
RUNTIME = ("concrete", "mlir", "onnxruntime", "torch", "pkg_resources")
# Everything but what every side has.
EXTRAS = (*COMPILER, *TUNER, *SERVICE, *RUNTIME)


def python(code: str, absent: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", BLOCKED.format(absent=absent) + code, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def command(absent: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    return python("from onnx_fhe.cli import main\nmain(sys.argv[1:])", absent, *arguments)


def test_help_works_with_what_every_side_has():
    done = command(EXTRAS, "--help")
    assert done.returncode == 0, done.stderr
    assert "compile" in done.stdout


@pytest.mark.parametrize(
    ("absent", "line", "extra"),
    [
        (EXTRAS, "compile m.onnx --calibration d.npz -o m.fhe", "compile"),
        (EXTRAS, "keygen m.client --keys k -o e.keys", "client"),
        (EXTRAS, "encrypt m.client --keys k --data d.npz -o in.enc", "client"),
        (TUNER, "tune m.onnx --calibration d.npz --data t.npz -o m.fhe", "tune"),
    ],
)
def test_a_command_says_how_to_install_what_it_lacks(absent, line, extra):
    done = command(absent, *line.split())
    assert done.returncode == 1, done.stderr
    assert f"pip install 'onnx-fhe[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("absent", "name", "extra"),
    [
        (EXTRAS, "compile", "compile"),
        (EXTRAS, "Client", "client"),
        (TUNER, "tune", "tune"),
    ],
)
def test_the_python_api_says_so_too(absent, name, extra):
    code = f"""
import onnx_fhe
from onnx_fhe.ir.errors import MissingPackageError
try:
    onnx_fhe.{name}
except MissingPackageError as error:
    print(error.do)
"""
    assert python(code, absent).stdout.strip() == f"pip install 'onnx-fhe[{extra}]'"


def test_the_names_of_the_api_load_without_the_other_side():
    code = "import onnx_fhe\nprint(onnx_fhe.{0}.__name__)"
    assert python(code.format("Client"), (*COMPILER, *TUNER, *SERVICE, "torch")).stdout.strip() == "Client"
    absent = (*COMPILER, *TUNER, "httpx", "onnxruntime", "torch")
    assert python(code.format("Server"), absent).stdout.strip() == "Server"


def test_another_import_error_stays_what_it_is():
    done = python("import onnx_fhe\nonnx_fhe.Client", ("hashlib",))
    assert "MissingPackageError" not in done.stderr
    assert "No module named 'hashlib'" in done.stderr
