"""What artifacts promise, on a local folder and on an object store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest

from milvine.artifacts import Artifacts
from milvine.domain.errors import DataLoss, Reason, Unavailable

TENSORS = {
    "item_vectors": np.arange(12, dtype=np.float32).reshape(3, 4),
    "item_popularity": np.array([3, 2, 1]),
    "double": np.array([[0.1]]),
    "number": np.array(0.5, np.float32),
    "flags": np.array([True, False]),
    "nothing": np.zeros((0, 4), np.float32),
}
IDS = ["a", "日本", "x y"]
DOCUMENT = {"family": "als", "metrics": [0.5, None], "name": "Ä"}


@pytest.fixture(params=["folder", "memory"])
def url(request, tmp_path: Path):
    if request.param == "folder":
        return str(tmp_path / "deep" / "artifacts")
    return f"memory://artifacts-{uuid.uuid4().hex}"


@pytest.fixture
def artifacts(url):
    return Artifacts(url)


def _file(url: str, name: str) -> tuple[fsspec.AbstractFileSystem, str]:
    files, root = fsspec.core.url_to_fs(url)
    return files, f"{root}/m/{name}"


def _save(artifacts: Artifacts, model_id: str = "m", **changes: np.ndarray) -> None:
    artifacts.save(model_id, TENSORS | changes, IDS, DOCUMENT)


def test_round_trip(artifacts):
    """What is loaded is what was saved: values, types, shapes, ids and document."""
    _save(artifacts)
    loaded = artifacts.load("m")
    assert loaded.item_ids.to_pylist() == IDS
    assert loaded.document == DOCUMENT
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        assert loaded.tensors[name].dtype == expected.dtype
        np.testing.assert_array_equal(loaded.tensors[name], expected)


def test_loaded_tensors_are_read_only(artifacts):
    """Loaded tensors can't be written: they may be the file itself."""
    _save(artifacts)
    with pytest.raises(ValueError, match="read-only"):
        artifacts.load("m").tensors["item_vectors"][0] = 1


def test_artifacts_stay_apart_and_can_be_deleted(artifacts):
    """Deleting one artifact leaves the others; deleting it again is no error."""
    _save(artifacts, "m")
    _save(artifacts, "n")
    artifacts.delete("m")
    artifacts.delete("m")
    assert not artifacts.exists("m")
    assert artifacts.exists("n")
    assert artifacts.load("n").item_ids.to_pylist() == IDS


def test_what_is_mapped_survives_its_deletion(artifacts):
    """A loaded model can be used to its end after its artifact is gone."""
    _save(artifacts)
    loaded = artifacts.load("m")
    artifacts.delete("m")
    np.testing.assert_array_equal(loaded.tensors["item_vectors"], TENSORS["item_vectors"])


def test_saving_again_replaces(artifacts):
    """A training that is taken up again replaces what an earlier one left."""
    _save(artifacts)
    _save(artifacts, item_vectors=np.ones((3, 2), np.float32))
    assert artifacts.load("m").tensors["item_vectors"].shape == (3, 2)


def test_missing_artifact_is_lost_data(artifacts):
    """An artifact that does not exist raises DataLoss, and does not exist."""
    assert not artifacts.exists("m")
    with pytest.raises(DataLoss, match="does not exist") as caught:
        artifacts.load("m")
    assert caught.value.reason is Reason.ARTIFACT_DAMAGED


@pytest.mark.parametrize("place", [0, 9, 200, -1])
def test_changed_byte_of_the_weights_is_found(artifacts, url, place):
    """A changed byte anywhere in the weights raises DataLoss."""
    _save(artifacts)
    files, path = _file(url, "weights.safetensors")
    content = bytearray(files.cat_file(path))
    content[place] ^= 1
    files.pipe_file(path, bytes(content))
    with pytest.raises(DataLoss, match="digest"):
        artifacts.load("m")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_weights_are_found(artifacts, url, share):
    """Weights that are cut short raise DataLoss."""
    _save(artifacts)
    files, path = _file(url, "weights.safetensors")
    content = files.cat_file(path)
    files.pipe_file(path, content[: int(len(content) * share)])
    with pytest.raises(DataLoss, match="digest"):
        artifacts.load("m")


def test_missing_weights_are_found(artifacts, url):
    """A document without its weights raises DataLoss."""
    _save(artifacts)
    files, path = _file(url, "weights.safetensors")
    files.rm_file(path)
    with pytest.raises(DataLoss, match="weights are missing"):
        artifacts.load("m")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"null"])
def test_damaged_document_is_found(artifacts, url, content):
    """A document that is no document raises DataLoss."""
    _save(artifacts)
    files, path = _file(url, "model.json")
    files.pipe_file(path, content)
    with pytest.raises(DataLoss, match="not readable"):
        artifacts.load("m")


def test_changed_document_is_found(artifacts, url):
    """A changed value in the document raises DataLoss."""
    _save(artifacts)
    files, path = _file(url, "model.json")
    files.pipe_file(path, files.cat_file(path).replace(b"als", b"bls"))
    with pytest.raises(DataLoss, match="digest"):
        artifacts.load("m")


def test_other_format_is_refused(artifacts, url):
    """An artifact of a later format raises DataLoss that names both formats."""
    _save(artifacts)
    files, path = _file(url, "model.json")
    manifest = json.loads(files.cat_file(path)) | {"format": 2}
    files.pipe_file(path, json.dumps(manifest).encode())
    with pytest.raises(DataLoss, match="format 2 is not format 1"):
        artifacts.load("m")


def test_store_that_cannot_be_written_is_unavailable(tmp_path: Path):
    """A store whose folder is a file raises Unavailable, without the system's own text."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable) as caught:
        _save(Artifacts(str(tmp_path / "file")))
    assert caught.value.reason is Reason.ARTIFACTS_UNAVAILABLE
    assert "Errno" not in caught.value.message


def test_store_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch):
    """A store that hangs raises Unavailable at the deadline."""
    artifacts = Artifacts(str(tmp_path), timeout_s=0.05)
    monkeypatch.setattr(artifacts._files, "exists", lambda _: time.sleep(1))
    start = time.monotonic()
    with pytest.raises(Unavailable, match=r"0\.05 s"):
        artifacts.exists("m")
    assert time.monotonic() - start < 0.9


def test_kill_while_saving_leaves_all_or_nothing(tmp_path: Path):
    """Killed at any moment of a save, an artifact is complete or absent, and can be saved anew."""
    script = textwrap.dedent(
        """
        import sys
        import numpy as np
        from milvine.artifacts import Artifacts
        artifacts = Artifacts(sys.argv[1])
        vectors = np.ones((200_000, 32), np.float32)
        print("ready", flush=True)
        while True:
            artifacts.save("m", {"item_vectors": vectors}, ["a"], {"n": 1})
        """
    )
    artifacts = Artifacts(str(tmp_path))
    outcomes = set()
    for delay in (0.02, 0.05, 0.08, 0.11, 0.17, 0.23):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        with child:
            assert child.stdout.readline() == "ready\n"
            time.sleep(delay)  # the moment of the kill is what varies
            child.send_signal(signal.SIGKILL)
        outcomes.add(artifacts.exists("m"))
        if artifacts.exists("m"):
            assert artifacts.load("m").tensors["item_vectors"].shape == (200_000, 32)
    assert outcomes
    _save(artifacts)
    assert artifacts.load("m").item_ids.to_pylist() == IDS
