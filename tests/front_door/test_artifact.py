"""The artifact: what is in it, and that anything else is refused with one clear message."""

from __future__ import annotations

import copy
import json
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest

import onnx_fhe
from onnx_fhe import archive, artifact, manifest
from onnx_fhe.ir.errors import ArtifactError, OutputError, UserError
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.runtime import Session


@pytest.fixture(scope="module")
def program(zoo, tmp_path_factory):
    proto = zoo.mlp()
    path = tmp_path_factory.mktemp("artifact") / "mlp.onnx"
    onnx.save(proto, path)
    pipeline = "quantize,lower-to-integer,fuse-tlu"
    return onnx_fhe.compile(path, zoo.samples(proto), pipeline, "reference", check_samples=0)


@pytest.fixture(scope="module")
def content(program, tmp_path_factory):
    """Files of a good artifact by name, the manifest among them."""
    file = tmp_path_factory.mktemp("good") / "good.fhe"
    program.save(file)
    with zipfile.ZipFile(file) as archive:
        return {n: archive.read(n) for n in archive.namelist()}


@pytest.fixture
def written(tmp_path):
    """Writes a zip of the given files and returns its path."""

    def write(files, name="model.fhe"):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, data in files.items() if isinstance(files, dict) else files:
                archive.writestr(entry, data)
        return path

    return write


def refused(path) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        onnx_fhe.Program.load(path)
    assert str(path) in str(caught.value), "the message names the file"
    return caught.value


def test_it_holds_the_two_sides_apart(content, program):
    assert {artifact.MANIFEST, artifact.INTEGER, artifact.PROLOGUE, artifact.EPILOGUE} <= set(content)
    plain = json.loads(content[artifact.MANIFEST])
    assert set(plain["parts"]) == set(content) - {artifact.MANIFEST}
    assert plain["format"] == manifest.FORMAT
    assert plain["pipeline"] == program.manifest.pipeline
    assert plain["statistics"]["layers"][0]["programmable_bootstraps"] > 0
    for name in (artifact.PROLOGUE, artifact.EPILOGUE, artifact.INTEGER):
        onnx.checker.check_model(onnx.load_model_from_string(content[name]), full_check=True)


def test_the_client_parts_are_those_of_the_integer_model(content, program, zoo):
    data = zoo.samples(zoo.mlp())
    wanted = Session(partition(program.integer_model).prologue).run_batched(data)
    found = Session(onnx.load_model_from_string(content[artifact.PROLOGUE])).run_batched(data)
    assert list(found) == list(wanted)
    for name, array in found.items():
        np.testing.assert_array_equal(array, wanted[name])


def test_the_same_program_gives_the_same_bytes(program, tmp_path):
    program.save(tmp_path / "a.fhe")
    program.save(tmp_path / "b.fhe")
    assert (tmp_path / "a.fhe").read_bytes() == (tmp_path / "b.fhe").read_bytes()
    assert {f.name for f in tmp_path.iterdir()} == {"a.fhe", "b.fhe"}, "no temporary file is left"


def test_it_loads_back(content, written, program):
    loaded = onnx_fhe.Program.load(written(content))
    assert loaded.manifest == replace(program.manifest, parts=loaded.manifest.parts)
    assert loaded.notes == program.notes


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no such" in refused(tmp_path / "none.fhe").what
    assert "cannot be read" in refused(tmp_path).what


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04 half a zip", os.urandom(5000)])
def test_what_is_no_zip_is_refused(tmp_path, data):
    path = tmp_path / "model.fhe"
    path.write_bytes(data)
    error = refused(path)
    assert "no artifact" in error.what
    assert error.do


def test_every_truncation_is_refused(content, written):
    path = written(content)
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        refused(path)


def test_every_changed_byte_is_refused_or_harmless(content, written, program):
    path = written(content)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        try:
            loaded = onnx_fhe.Program.load(path)
        except ArtifactError:
            continue
        # A date or a permission bit of the zip may change without any harm.
        assert loaded.manifest.parts == json.loads(content[artifact.MANIFEST])["parts"]


def test_a_zip_of_something_else_is_refused(written):
    assert "name that no artifact has" in refused(written({"hello.txt": b"hello"})).what
    assert "no artifact" in refused(written({"integer.onnx": b"hello"})).what


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "server/../../evil", "C:\\evil", "server\\evil", "client/./x", "other/x"]
)
def test_names_that_lead_elsewhere_are_refused(content, written, name):
    assert "name that no artifact has" in refused(written({**content, name: b"x"})).what


@pytest.mark.parametrize("name", [artifact.INTEGER, artifact.PROLOGUE, artifact.EPILOGUE])
def test_a_missing_part_is_named(content, written, name):
    error = refused(written({k: v for k, v in content.items() if k != name}))
    assert name in error.found
    # Not even a manifest without it will do.
    plain = json.loads(content[artifact.MANIFEST])
    del plain["parts"][name]
    changed = {k: v for k, v in content.items() if k != name} | {artifact.MANIFEST: json.dumps(plain)}
    assert name in refused(written(changed)).found


def test_a_changed_part_is_named(content, written):
    error = refused(written({**content, artifact.INTEGER: content[artifact.INTEGER] + b"\0"}))
    assert artifact.INTEGER in error.found


def test_a_part_that_is_not_listed_is_refused(content, written):
    assert "server/more" in refused(written({**content, "server/more": b"x"})).found


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_twice_is_refused(content, written):
    assert "twice" in refused(written([*content.items(), (artifact.INTEGER, b"x")])).what


def test_a_newer_format_is_refused_with_advice(content, written):
    plain = json.loads(content[artifact.MANIFEST]) | {"format": manifest.FORMAT + 1, "new": True}
    error = refused(written({**content, artifact.MANIFEST: json.dumps(plain)}))
    assert "newer" in error.what
    assert "update" in error.do


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "1"}', '{"format": 1}', '{"format": 0}', "\xff"]
)
def test_a_damaged_manifest_is_refused(content, written, text):
    error = refused(written({**content, artifact.MANIFEST: text.encode("latin-1")}))
    assert "manifest is damaged" in error.what
    assert error.found


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, 99])
def test_other_ways_of_packing_are_refused(content, written, method):
    path = written(content)
    whole = bytearray(path.read_bytes())
    # In the local header and in the directory, as a damaged or hostile file has it.
    for place in (8, whole.rindex(b"PK\x01\x02") + 10):
        whole[place : place + 2] = method.to_bytes(2, "little")
    path.write_bytes(whole)
    assert refused(path).what


def test_parts_that_changed_places_are_refused(content, written):
    swapped = {**content, artifact.PROLOGUE: content[artifact.EPILOGUE]}
    swapped[artifact.EPILOGUE] = content[artifact.PROLOGUE]
    assert "not what its manifest says" in refused(written(swapped)).what
    assert "client's part" in refused(written(rehashed(swapped))).what


def test_a_zip_bomb_is_refused_unopened(content, written, monkeypatch):
    monkeypatch.setattr(archive, "FREE_BYTES", 10**5)
    path = written({**content, "server/bomb": bytes(10**7)})
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, entry: pytest.fail("it was unpacked"))
    assert "unpacks to more" in refused(path).what


def test_what_we_write_is_never_taken_for_a_bomb(program, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FREE_BYTES", 1000)
    files = {artifact.INTEGER: bytes(10**6), artifact.PROLOGUE: b"", artifact.EPILOGUE: b""}
    path = tmp_path / "zeros.fhe"
    artifact.write(path, program.manifest, files)
    assert artifact.read(path)[1] == files


def test_an_artifact_whose_model_is_no_model_is_refused(content, written):
    changed = {**content, artifact.INTEGER: b"no model"}
    plain = json.loads(content[artifact.MANIFEST])
    plain["parts"] = archive.hashes({k: v for k, v in changed.items() if k != artifact.MANIFEST})
    changed[artifact.MANIFEST] = json.dumps(plain).encode()
    assert "integer model" in refused(written(changed)).what


def test_an_artifact_of_an_unknown_backend_still_runs_in_the_clear(content, written, zoo):
    plain = json.loads(content[artifact.MANIFEST]) | {"backend": "elsewhere"}
    loaded = onnx_fhe.Program.load(written({**content, artifact.MANIFEST: json.dumps(plain)}))
    data = zoo.samples(zoo.mlp())
    assert loaded.run(data, limit=2).samples == 2
    with pytest.raises(onnx_fhe.ir.errors.UserError, match="there is no backend"):
        loaded.simulate(data)


def test_a_path_that_cannot_be_written_is_refused(program, tmp_path):
    with pytest.raises(OutputError):
        program.save(tmp_path / "missing" / "model.fhe")
    with pytest.raises(OutputError):
        program.save(tmp_path)


def test_it_is_told_from_a_model(tmp_path):
    assert artifact.is_artifact("x.fhe")
    (tmp_path / "zip").write_bytes(b"PK\x03\x04")
    assert artifact.is_artifact(tmp_path / "zip")
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    assert not artifact.is_artifact(tmp_path / "model.onnx")
    assert not artifact.is_artifact(tmp_path / "none.onnx")


# What cannot be true


def rehashed(content, **changes):
    """The files with some changed, by a hand that knows how hashes are made."""
    files = {**content, **changes.pop("files", {})}
    plain = json.loads(files[artifact.MANIFEST])
    for place, value in changes.items():
        *path, last = place.split("__")
        inner = plain
        for part in path:
            inner = inner[int(part) if part.isdecimal() else part]
        inner[last] = value
    plain["parts"] = archive.hashes({k: v for k, v in files.items() if k != artifact.MANIFEST})
    return {**files, artifact.MANIFEST: json.dumps(plain).encode()}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("security_level", 1),
        ("security_level", -128),
        ("p_error", 2.0),
        ("p_error", 0.0),
        ("p_error", float("nan")),
        ("global_p_error", -0.1),
        ("range_margin", float("inf")),
        ("seed", -1),
        ("statistics__complexity", float("nan")),
        ("statistics__complexity", -1.0),
        ("statistics__programmable_bootstraps", -5),
        ("statistics__p_error", 1.5),
        ("statistics__evaluation_key_bytes", 10**30),
        ("statistics__max_table_bits", 1000),
        ("statistics__layers__0__programmable_bootstraps", -1),
        ("record__measured__samples", -1),
        ("record__measured__stages__0__output_error", float("nan")),
        ("inputs__0__name", "other"),
        ("outputs__0__name", "other"),
    ],
)
def test_what_cannot_be_true_is_refused(content, written, place, value):
    error = refused(written(rehashed(content, **{place: value})))
    assert "manifest" in error.what
    assert error.found


def test_hashes_made_anew_alone_change_nothing(content, written):
    assert onnx_fhe.Program.load(written(rehashed(content))).manifest


@pytest.fixture(scope="module")
def foreign(zoo, tmp_path_factory):
    """Files of an artifact of the same shapes with other weights."""
    folder = tmp_path_factory.mktemp("foreign")
    proto = zoo.mlp()
    for stored in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(stored)
        stored.CopyFrom(onnx.numpy_helper.from_array(np.float32(-1.5) * array[::-1].copy(), stored.name))
    onnx.save(proto, folder / "mlp.onnx")
    data = {k: 3 * v for k, v in zoo.samples(proto).items()}
    pipeline = "quantize,lower-to-integer,fuse-tlu"
    onnx_fhe.compile(folder / "mlp.onnx", data, pipeline, "reference", check_samples=0).save(folder / "x.fhe")
    with zipfile.ZipFile(folder / "x.fhe") as archive:
        return {n: archive.read(n) for n in archive.namelist()}


@pytest.mark.parametrize("name", [artifact.PROLOGUE, artifact.EPILOGUE])
def test_a_foreign_part_of_the_client_is_refused(content, foreign, written, name):
    error = refused(written(rehashed(content, files={name: foreign[name]})))
    assert "client's part" in error.what
    assert name.rpartition("/")[2] in error.found


def test_a_part_of_the_client_that_is_no_model_is_refused(content, written):
    error = refused(written(rehashed(content, files={artifact.PROLOGUE: b"nothing"})))
    assert "client's part" in error.what


# Copies of programs


@pytest.mark.parametrize("copied", [lambda p: pickle.loads(pickle.dumps(p)), copy.deepcopy])
@pytest.mark.parametrize("loaded", [False, True], ids=["fresh", "loaded"])
def test_programs_are_copied(program, content, written, zoo, copied, loaded):
    original = onnx_fhe.Program.load(written(content)) if loaded else program
    data = zoo.samples(zoo.mlp())
    original.encrypted(data, limit=1)
    assert original._runs.session is not None
    again = copied(original)
    assert again._runs.session is None, "keys stay where they are"
    assert again.manifest == original.manifest
    assert again.integer_model is not original.integer_model
    for mode in ("clear", "simulate", "encrypted"):
        wanted, found = (p.run(data, mode, limit=3).outputs for p in (original, again))
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)


def test_the_file_that_was_loaded_is_the_one_that_was_compiled(zoo, tmp_path):
    proto = zoo.mlp()
    onnx.save(proto, tmp_path / "mlp.onnx")
    data = zoo.samples(proto)
    for model in (onnx_fhe.load(tmp_path / "mlp.onnx"), tmp_path / "mlp.onnx"):
        made = onnx_fhe.compile(model, data, "quantize,lower-to-integer,fuse-tlu", "reference")
        made.report(tmp_path / "page.html", data=data, model=tmp_path / "mlp.onnx")
        assert (tmp_path / "page.html").stat().st_size > 0
    onnx.save(zoo.swish(), tmp_path / "mlp.onnx")
    with pytest.raises(UserError, match="not the network that was compiled"):
        made.report(tmp_path / "page.html", data=data, model=tmp_path / "mlp.onnx")
