"""What is installed is what stands in the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from onnx_fhe import extras

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOMS = {
    "ir": "onnx_fhe/ir",
    "analysis": "onnx_fhe/analysis",
    "passes": "onnx_fhe/passes",
    "backends": "onnx_fhe/backends",
    "onnx_fhe": "onnx_fhe",
}


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    """Names and texts of the files in a wheel built from the working tree."""
    # From a copy: building in the tree leaves folders behind, and picks up what earlier builds left.
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for room in ROOMS:
        shutil.copytree(root / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for pattern in ("setup.py", "pyproject.toml", "*.md", "LICENSE"):
        for file in root.glob(pattern):
            shutil.copy(file, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "-w", str(built), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = built.glob("onnx_fhe-*.whl")
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_every_file_of_the_rooms_is_in_the_wheel(root, wheel):
    expected = {
        f"{package}/{file.relative_to(root / room).as_posix()}"
        for room, package in ROOMS.items()
        for file in (root / room).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    missing = expected - set(wheel)
    assert not missing, (
        f"not installed: {sorted(missing)}; a folder lacks __init__.py (setup.py finds packages by it), "
        "or a file that is no Python is not named in [tool.setuptools.package-data]"
    )


def test_nothing_else_is_in_the_wheel(wheel):
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"onnx_fhe"}


def test_the_package_says_that_it_is_typed(wheel):
    assert "onnx_fhe/py.typed" in wheel


def test_the_licence_and_its_notes_travel_with_it(wheel):
    names = {name.rsplit("/", 1)[-1] for name in wheel}
    assert {"LICENSE", "LICENSE-NOTES.md"} <= names


def test_the_command_is_declared(wheel):
    (declared,) = (text for name, text in wheel.items() if name.endswith("entry_points.txt"))
    assert "onnx-fhe = onnx_fhe.cli:main" in declared


def test_every_root_package_is_a_room(root):
    packages = {file.parent.name for file in root.glob("*/__init__.py")}
    assert packages == set(ROOMS), "a new room needs a line in setup.py"


def _constraints(root, python):
    """The tested version of each package on that Python, by normalized name."""
    lines = (line.split("#")[0].strip() for line in (root / "constraints.txt").read_text().splitlines())
    pins = [Requirement(line) for line in lines if line]
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    return {p.name: p.specifier for p in pins if p.marker is None or p.marker.evaluate(environment)}


def _project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def _name(requirement):
    return Requirement(requirement).name.lower().replace("_", "-")


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_every_dependency_has_a_tested_version_that_is_accepted(root, python):
    project = _project(root)
    pins = _constraints(root, python)
    lean = [line for side in SIDES for line in _lean(root, side)]
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    for text in [*project["dependencies"], *extras, *lean]:
        wanted = Requirement(text)
        if wanted.name == "onnx-fhe" or (
            wanted.marker and not wanted.marker.evaluate({"python_version": python})
        ):
            continue
        (pin,) = pins[wanted.name.lower().replace("_", "-")]
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), f"{text} does not take {pin.version}, which is tested"


# What concrete-python demands and its runtime does not import (see test_neither_side_imports_the_compiler).
UNNEEDED = {"torch", "scipy", "z3-solver", "networkx", "importlib-resources"}
SIDES = ("client", "server")


def _lean(root, side):
    lines = (root / "requirements" / f"{side}-lean.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _demanded(texts):
    """Names of what is installed with these requirements here, without what is not needed."""
    found, waiting = set(), [*texts]
    while waiting:
        wanted = Requirement(waiting.pop())
        name = wanted.name.lower().replace("_", "-")
        if name in UNNEEDED or name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += metadata.requires(name) or []
    return found


@pytest.mark.parametrize("side", SIDES)
def test_a_lean_side_has_all_that_its_packages_demand_but_what_is_not_needed(root, side):
    project = _project(root)
    demanded = _demanded([*project["dependencies"], *project["optional-dependencies"][side]])
    here = [r for r in map(Requirement, _lean(root, side)) if r.marker is None or r.marker.evaluate()]
    found = {_name(str(r)) for r in here}
    assert demanded <= found
    # Older versions of typer need it.
    assert found - demanded <= {"click"}


@pytest.mark.parametrize("side", SIDES)
def test_a_lean_side_takes_the_versions_that_the_package_takes(root, side):
    project = _project(root)
    lean = {_name(text): Requirement(text).specifier for text in _lean(root, side)}
    for text in [*project["dependencies"], *project["optional-dependencies"][side]]:
        assert lean[_name(text)] == Requirement(text).specifier, text


@pytest.mark.parametrize("extra", sorted(extras.MODULES))
def test_what_is_missing_is_told_by_its_extra(root, extra):
    declared = _project(root)["optional-dependencies"][extra]
    packages = metadata.packages_distributions()
    known = {d.lower().replace("_", "-") for m in extras.MODULES[extra] for d in packages.get(m, [])}
    here = (r for r in map(Requirement, declared) if r.marker is None or r.marker.evaluate({"extra": ""}))
    assert {_name(str(r)) for r in here if r.name != "onnx-fhe"} <= known


def test_developers_get_every_extra_that_brings_something_to_run(root):
    (ours,) = (Requirement(t) for t in _project(root)["optional-dependencies"]["dev"] if "onnx-fhe[" in t)
    assert ours.extras == set(extras.MODULES)
