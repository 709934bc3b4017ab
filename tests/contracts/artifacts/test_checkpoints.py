"""What checkpoints promise, on a local folder and on an object store."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from milvine.artifacts import Artifacts

STATE = {
    "network.items": np.arange(12, dtype=np.float32).reshape(3, 4),
    "adam.0.step": np.array(3.0, np.float32),
    "reports": np.array([[1.0, 0.5, 0.1, np.nan]]),
    "best_epoch": np.array([1]),
    "nothing": np.zeros((0, 4), np.float32),
}


@pytest.fixture(params=["folder", "memory"])
def url(request, tmp_path: Path):
    if request.param == "folder":
        return str(tmp_path / "deep" / "artifacts")
    return f"memory://artifacts-{uuid.uuid4().hex}"


@pytest.fixture
def artifacts(url):
    return Artifacts(url)


def checkpoint(artifacts: Artifacts, name: str = "fitting", stamp: str = "s"):
    return artifacts.checkpoint("o1", name, stamp=stamp)


def file(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    files, root = fsspec.core.url_to_fs(url)
    return files, f"{root}/o1/fitting.safetensors"


def same(loaded, state) -> bool:
    return loaded.keys() == state.keys() and all(
        loaded[name].dtype == array.dtype and np.array_equal(loaded[name], array, equal_nan=True)
        for name, array in state.items()
    )


def test_round_trip(artifacts):
    """What is loaded is what was saved last: values, types and shapes."""
    assert checkpoint(artifacts).load() is None
    checkpoint(artifacts).save({"other": np.ones(3)})
    checkpoint(artifacts).save(STATE)
    assert same(checkpoint(artifacts).load(), STATE)


def test_fits_have_their_own(artifacts):
    """Fits of one work do not see each other's state, and both go with their folder."""
    for name in ("one", "two"):
        checkpoint(artifacts, name).save({"name": np.array([len(name), name == "two"])})
    assert [checkpoint(artifacts, name).load()["name"][1] for name in ("one", "two")] == [0, 1]
    artifacts.delete("o1")
    assert [checkpoint(artifacts, name).load() for name in ("one", "two")] == [None, None]


def test_other_work_is_not_loaded(artifacts):
    """The state of other data, settings or devices is as none."""
    checkpoint(artifacts, stamp="before").save(STATE)
    assert checkpoint(artifacts, stamp="after").load() is None


@pytest.mark.parametrize("length", [0, 4, 50, -1])
def test_damaged_state_is_none(artifacts, url, length):
    """A file that is cut short is as none."""
    checkpoint(artifacts).save(STATE)
    files, path = file(url)
    files.pipe_file(path, files.cat_file(path)[:length])
    assert checkpoint(artifacts).load() is None


def test_only_the_state_is_left(artifacts, url):
    """Saving again and again leaves one file."""
    for _ in range(3):
        checkpoint(artifacts).save(STATE)
    files, path = file(url)
    assert len(files.ls(path.rpartition("/")[0])) == 1


def test_a_store_that_is_away_costs_the_checkpoint_only(tmp_path: Path):
    """What can't be written or read is said in the log, and the fit goes on."""
    (tmp_path / "file").write_text("in the way")
    lost = checkpoint(Artifacts(str(tmp_path / "file")))
    with capture_logs() as logs:
        lost.save(STATE)
    assert lost.load() is None
    assert [entry["event"] for entry in logs] == ["cannot keep a checkpoint"]
