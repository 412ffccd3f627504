"""What commands import: packages that take long, and only where the command needs them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import onnx_fhe
from onnx_fhe.ir.deferred import without

SLOW = ("concrete", "networkx", "onnxscript", "optuna", "pandas", "rich", "scipy", "sympy", "torch")
ROUNDED = "quantize{weights=3 activations=3 inputs=3},lower-to-integer,fuse-tlu,insert-rounding{bits=3}"

COMMAND = """
import sys
from onnx_fhe.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
print("imported", *{m.split(".")[0] for m in sys.modules})
"""


def python(code: str, *arguments: object) -> str:
    line = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def imported(*arguments: object) -> set[str]:
    """The slow packages that a command imports in a process of its own."""
    last = python(COMMAND, *arguments).splitlines()[-1].split()
    assert last[0] == "imported"
    return set(SLOW) & set(last)


@pytest.fixture(scope="module")
def files(digits_mlp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("startup")
    circuit, data = folder / "mlp.fhe", folder / "data.npz"
    given = {k: v[:100] for k, v in digits_mlp.calibration_data.items()}
    program = onnx_fhe.compile(digits_mlp.model, given, ROUNDED, backend="reference", accept_loss=True)
    program.save(circuit)
    np.savez(data, **{k: v[:10] for k, v in digits_mlp.test_data.items()})
    return circuit, data


def test_a_run_in_the_clear(files):
    circuit, data = files
    assert imported("run", circuit, "--data", data) == set()


def test_looking_at_a_circuit(files):
    assert imported("inspect", files[0]) <= {"networkx"}


def test_looking_at_a_network(digits_mlp):
    assert imported("inspect", digits_mlp.model) <= {"networkx", "onnxscript"}


def test_describing_a_pass():
    assert imported("passes", "quantize") <= {"networkx"}


def test_help():
    code = "import sys; print('onnx_ir' in sys.modules or 'numpy' in sys.modules)"
    assert python(COMMAND + code, "run", "--help").splitlines()[-1] == "False"


def test_sympy_is_there_when_axes_are_calculated_with():
    code = """
import sys
from onnx_fhe.cli import imports
imports.onnx_ir()
import onnx_ir as ir
assert "sympy" not in sys.modules
found = ir.SymbolicDim("N") * 2 + ir.SymbolicDim("max(N, 3)")
import sympy
print(found, sympy.__name__, ir._core.sympy.Expr is sympy.Expr)
"""
    assert python(code).strip() == "2*N + Max(3, N) sympy True"


def test_torch_is_there_when_concrete_evaluates():
    code = """
import sys
import numpy as np
import onnx_fhe.backends.concrete.backend
assert "torch" not in sys.modules
from concrete import fhe
found = fhe.maxpool(np.arange(16).reshape(1, 1, 4, 4), kernel_shape=(2, 2), strides=(2, 2))
import torch
print(found.ravel().tolist(), torch.max_pool2d.__name__)
"""
    assert python(code).strip() == "[5, 7, 13, 15] max_pool2d"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that says when it is imported, and a module that imports it at once."""
    name = f"heavy_{tmp_path.name}".replace("-", "_")
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(
        "def double(x):\n    return 2 * x\n\nclass Kind:\n    size = 3\n"
    )
    (tmp_path / name / "inner.py").write_text("three = 3\n")
    text = f"import {name}\ntable = {{1: {name}.double}}\nkind = {name}.Kind\n"
    (tmp_path / f"uses_{name}.py").write_text(text)
    (tmp_path / f"inside_{name}.py").write_text(f"from {name}.inner import three\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    for module in [m for m in sys.modules if name in m]:
        del sys.modules[module]


def test_a_package_is_imported_when_it_is_used(package):
    with without(package):
        user = __import__(f"uses_{package}")
    assert package not in sys.modules
    assert user.table[1](4) == 8
    assert user.kind.size == 3
    real = sys.modules[package]
    assert getattr(user, package).Kind is real.Kind
    with pytest.raises(AttributeError, match="nothing"):
        _ = getattr(user, package).nothing


def test_threads_may_use_it_first(package):
    with without(package):
        user = __import__(f"uses_{package}")
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(user.table[1](4))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [8] * 8


def test_modules_inside_it_may_be_imported(package):
    with without(package):
        user = __import__(f"inside_{package}")
    assert user.three == 3
    assert sys.modules[package].inner.three == 3


def test_what_is_imported_already_stays(package):
    real = __import__(package)
    with without(package):
        user = __import__(f"uses_{package}")
    assert sys.modules[package] is real
    assert user.kind is real.Kind


def test_a_package_that_is_not_there_is_missed_when_it_is_used():
    with without("no_such_package"):
        import no_such_package
    with pytest.raises(ImportError, match="no_such_package"):
        _ = no_such_package.thing
