"""Where tests lie: in folders that mirror the rooms and their topics."""

from __future__ import annotations

import pytest

# Folder of tests, and what it mirrors.
MIRRORS = {
    "ir": "ir",
    "analysis": "analysis",
    "passes": "passes",
    "backends": "backends",
    "front_door": "onnx_fhe",
    "benchmarks": "benchmarks",
    "docs": "docs",
}
# Folders of tests that belong to no room: whole networks, hostile files, and the sources themselves.
OTHERS = {"end_to_end", "hostile", "repository"}


def test_every_test_lies_in_a_folder(root):
    loose = [file.name for file in (root / "tests").glob("test_*.py")]
    assert not loose, f"{loose}: into the folder of the room and topic, such as tests/passes/quantize"
    found = {file.relative_to(root / "tests").parts[0] for file in (root / "tests").rglob("test_*.py")}
    assert found == {*MIRRORS, *OTHERS}


@pytest.mark.parametrize(("folder", "room"), MIRRORS.items())
def test_folders_mirror_the_room(root, folder, room):
    tests = root / "tests" / folder
    for file in tests.rglob("test_*.py"):
        topic = file.parent.relative_to(tests)
        assert (root / room / topic).is_dir(), f"{file.relative_to(root)}: there is no {room}/{topic}"
