"""The embedded Milvus: one owner of the file, any number of processes that share it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from milvine.domain.errors import Aborted, Unavailable
from milvine.vectors import CollectionSpec, LiteProcess, Vectors
from tests.contracts.vectors.conftest import SOON, YEAR, collection

OWNER = """
import asyncio, sys
from pathlib import Path
import numpy as np
from milvine.domain.catalog import Field, FieldType, VectorIndex
from milvine.vectors import CollectionSpec, LiteProcess, Vectors

async def fill(uri):
    spec = CollectionSpec("kept", 2, (Field("year", FieldType.INT64),), VectorIndex())
    store = await Vectors.connect(uri)
    await store.create(spec, timeout_s=60)
    await store.seal(spec, timeout_s=60)
    for n in range(100_000):
        row = np.array([[1, n]], np.float32)
        await store.write(spec, [str(n)], row, [{"year": n}], fresh=False, timeout_s=60)
        print(n, flush=True)

lite = LiteProcess.open(Path(sys.argv[1]))
print(lite.uri, flush=True)
asyncio.run(fill(lite.uri))
"""
KEPT = CollectionSpec("kept", 2, (YEAR,), collection(2).index)


def child_serving(path: Path) -> int:
    """The process of milvus-lite that serves a file."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"/milvus") and bytes(path) in words:
                return int(process.name)
    raise AssertionError(f"nothing serves {path}")


@pytest.fixture
def killable(tmp_path: Path):
    """Another process that owns a file and writes rows to it, a line for each that it has."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "milvus.db")],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


async def until_it_answers(uri: str) -> Vectors:
    end = time.monotonic() + 20
    store = await Vectors.connect(uri, timeout_s=20)
    while True:
        try:
            await store.list(timeout_s=5)
        except Unavailable:
            assert time.monotonic() < end, "it does not come back"
        else:
            return store


async def test_two_processes_share_one_file(tmp_path: Path):
    """The second attaches: it sees the first one's rows, and the first sees its own."""
    path = tmp_path / "milvus.db"
    with closing(LiteProcess.open(path)) as mine:
        writer = f"""
import asyncio
from pathlib import Path
import numpy as np
from milvine.domain.catalog import VectorIndex
from milvine.vectors import CollectionSpec, LiteProcess, Vectors
async def main():
    lite = LiteProcess.attach_or_open(Path({str(path)!r}))
    assert not lite.owner
    store = await Vectors.connect(lite.uri)
    spec = CollectionSpec("shared", 2, (), VectorIndex())
    assert [row.id for row in await store.fetch(spec, ["a"], timeout_s=60)] == ["a"]
    await store.write(spec, ["b"], np.ones((1, 2), np.float32), [{{}}], fresh=True, timeout_s=60)
    lite.close()
asyncio.run(main())
"""
        spec = CollectionSpec("shared", 2, (), KEPT.index)
        store = await Vectors.connect(mine.uri)
        await store.create(spec, timeout_s=SOON)
        await store.seal(spec, timeout_s=SOON)
        await store.write(
            spec, ["a"], np.ones((1, 2), np.float32), [{}], fresh=True, timeout_s=SOON
        )
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", writer], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert (done.stdout, done.stderr) == (b"", b"")
        found = await store.match(spec, expression="", limit=9, timeout_s=SOON)
        assert found == ["a", "b"]
        await store.close()


def test_a_file_has_one_owner(tmp_path: Path):
    """Opening twice is refused; attaching gives the address of the first."""
    path = tmp_path / "milvus.db"
    with closing(LiteProcess.open(path)) as first:
        with pytest.raises(Aborted):
            LiteProcess.open(path)
        with closing(LiteProcess.attach_or_open(path)) as second:
            assert (first.owner, second.owner) == (True, False)
            assert second.uri == first.uri


def test_a_closed_file_can_be_opened_again(tmp_path: Path):
    """Closing stops the server and gives the file free."""
    path = tmp_path / "milvus.db"
    for _ in range(2):
        with closing(LiteProcess.open(path)):
            child = child_serving(path)
        assert not Path(f"/proc/{child}").exists()


def test_a_stale_address_is_not_trusted(tmp_path: Path):
    """What a dead owner left beside the file does not make another attach."""
    path = tmp_path / "milvus.db"
    (tmp_path / ".milvus.db.uri").write_text(f"unix:{tmp_path}/nobody")
    (tmp_path / ".milvus.db.owner").touch()
    with closing(LiteProcess.attach_or_open(path)) as lite:
        assert lite.owner


@pytest.mark.parametrize("name", ["has space.db", "x" * 37, "ü.db"])
def test_a_name_that_lite_refuses_is_a_value_error(tmp_path: Path, name: str):
    """The rule of names is checked before anything starts."""
    with pytest.raises(ValueError, match="1 to 36"):
        LiteProcess.open(tmp_path / name)


async def test_a_deep_folder_gets_a_short_socket(tmp_path: Path):
    """A path that no socket can have still serves."""
    path = tmp_path / ("deep and long " * 10) / "milvus.db"
    with closing(LiteProcess.open(path)) as lite:
        assert len(lite.uri) < 108
        await (await until_it_answers(lite.uri)).close()


async def test_a_killed_server_is_started_again_with_its_rows(tmp_path: Path):
    """While it is gone calls are Unavailable; then the same object finds what was written."""
    path = tmp_path / "milvus.db"
    with closing(LiteProcess.open(path)) as lite:
        store = await Vectors.connect(lite.uri)
        await store.create(KEPT, timeout_s=SOON)
        await store.seal(KEPT, timeout_s=SOON)
        row = np.ones((1, 2), np.float32)
        await store.write(KEPT, ["a"], row, [{"year": 1}], fresh=True, timeout_s=SOON)
        os.kill(child_serving(path), signal.SIGKILL)
        with pytest.raises(Unavailable):
            await store.search(KEPT, row, limit=1, timeout_s=SOON)
        await (await until_it_answers(lite.uri)).close()
        (hits,) = await store.search(KEPT, row, limit=1, fields=[YEAR], timeout_s=SOON)
        assert [dict(hit.fields) for hit in hits] == [{"year": 1}]
        await store.close()


async def test_acknowledged_rows_outlive_a_killed_owner_and_another_takes_over(
    tmp_path: Path, killable: subprocess.Popen[str]
):
    """After SIGKILL of the owner an attached process serves every acknowledged row."""
    assert killable.stdout is not None
    uri = killable.stdout.readline().strip()
    with closing(LiteProcess.attach_or_open(tmp_path / "milvus.db")) as lite:
        assert (lite.owner, lite.uri) == (False, uri)
        while int(killable.stdout.readline()) < 200:
            pass
        killable.kill()
        last = int(["200", *killable.stdout.read().split()][-1])
        end = time.monotonic() + 20
        while not lite.owner:
            assert time.monotonic() < end, "nobody takes over"
            await asyncio.sleep(0.01)
        store = await until_it_answers(uri)
        found = await store.match(KEPT, expression="", limit=100_000, timeout_s=SOON)
        assert {str(n) for n in range(last + 1)} <= set(found)
        await store.close()
