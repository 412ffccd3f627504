"""Searches whose trials run elsewhere: in processes, and on a real Dask cluster of two workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("optuna")
pytest.importorskip("distributed")

import distributed

from onnx_fhe.ir.errors import UserError
from onnx_fhe.tuning.tune import tune

QUICK = {"backend": "reference", "distill": False, "trials": 3, "finalists": 1, "max_accuracy_drop": 0.5}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, Path]:
    """A network of 4-6-2 and its data."""
    folder, random = tmp_path_factory.mktemp("small"), np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(random.normal(0, 0.5, shape).astype(np.float32), name)
        for name, shape in (("w0", (6, 4)), ("b0", 6), ("w1", (2, 6)), ("b1", 2))
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["input", "w0", "b0"], ["h"], "fc0", transB=1),
            helper.make_node("Relu", ["h"], ["r"], "relu"),
            helper.make_node("Gemm", ["r", "w1", "b1"], ["out"], "fc1", transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 2])],
        weights,
    )
    files = {n: folder / f"{n}.npz" for n in ("calibration", "data")}
    files["model"] = folder / "small.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), files["model"]
    )
    for name in ("calibration", "data"):
        np.savez(files[name], input=random.normal(0, 1, (40, 4)).astype(np.float32))
    return files


def run(files, **options):
    return tune(files["model"], files["calibration"], files["data"], **{**QUICK, **options}).frontier


@pytest.fixture(scope="module")
def here(small):
    """What this process finds."""
    return {(p.pipeline, p.p_error): p for p in run(small).points}


def same_as(here, found):
    """Points that were tried in both places are the same, whoever tried them."""
    both = [p for p in found.points if (p.pipeline, p.p_error) in here]
    assert both
    for point in both:
        mine = here[point.pipeline, point.p_error]
        # Not the seconds: a local cluster tells this process to use one core.
        assert (point.score, point.sha256) == (mine.score, mine.sha256)


def test_processes_find_the_same(small, here, tmp_path):
    # Enough trials for two circuits that do not collapse: the others are no finalists, and notes say so, and
    # what judged the best.
    found = run(small, trials=5, jobs=2, finalists=2, journal=tmp_path / "x.journal")
    assert found.best is not None
    assert len(found.finalists) == 2
    # Compiled by the processes, from the model on.
    assert all(found.point(n).measured.compile_seconds > 0 for n in found.finalists)
    assert all("was no finalist" in note or "is judged by" in note for note in found.notes)
    assert len(found.points) + len(found.failures) == 5
    same_as(here, found)


def test_a_cluster_of_two_workers_finds_the_same(small, here, tmp_path, monkeypatch):
    # The workers cannot import this file: the function travels by value.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "only_here.py").write_text(
        "import numpy as np\nWANTED = 0\n"
        "def share(outputs, labels):\n"
        "    return float((np.argmax(next(iter(outputs.values())), axis=1) == WANTED).mean())\n"
    )
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        local_directory=str(tmp_path),
    )
    with cluster:
        address = cluster.scheduler_address
        running = []
        found = run(small, dask=address, watch=lambda s: running.append(s.running))
        same_as(here, found)
        assert max(running) == 2
        assert found.best is not None
        own = run(small, dask=address, metric="only_here.py:share", trials=1)
        assert own.metric == "only_here.py:share"
        assert own.points


def test_without_a_cluster_the_address_is_named(small, monkeypatch):
    monkeypatch.setattr("onnx_fhe.cluster.WAIT", "1s")
    with pytest.raises(UserError) as error:
        run(small, dask="tcp://127.0.0.1:9")
    assert "tcp://127.0.0.1:9" in str(error.value)


def test_a_process_that_dies_is_said_and_nothing_is_lost(small, here, tmp_path):
    """A plug-in that ends the process stands for a crash, or for no memory."""
    plugin = tmp_path / "fatal.py"
    plugin.write_text("import multiprocessing, os\nif multiprocessing.parent_process():\n    os._exit(1)\n")
    with pytest.raises(UserError, match="ended before its time"):
        run(small, jobs=2, plugins=[str(plugin)], journal=tmp_path / "x.journal")
