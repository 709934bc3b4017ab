"""What a process does about stores that do not answer, or never will."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from milvine.domain.errors import FailedPrecondition, InvalidArgument
from milvine.records import Records
from milvine.settings import Settings
from milvine.stores import Stores
from milvine.vectors import Vectors
from tests.servers.milvus import free_ports


@asynccontextmanager
async def watched(settings: Settings):
    """Stores under watch."""
    stores = Stores(settings)
    watch = asyncio.create_task(stores.watch())
    try:
        yield stores
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        await stores.close()


def settings(folder, **given):
    """Settings of stores in a folder, and of a Milvus that is not there."""
    (port,) = free_ports(1)
    away = {"vectors_uri": f"http://127.0.0.1:{port}", "vectors_timeout_s": 0.2}
    return Settings(_env_file=None, data_dir=folder, **(away | given))


async def until(is_so):
    """Wait for something that the watch does."""
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("folder", "records_url", "name"),
    [("data", "mysql://x/y", "MILVINE_RECORDS_URL"), ("file/data", "", "MILVINE_DATA_DIR")],
)
async def test_a_wrong_setting_ends_the_watch(tmp_path, folder, records_url, name):
    """What trying again does not mend is kept as the failure, with the name of its variable."""
    (tmp_path / "file").touch()
    async with watched(settings(tmp_path / folder, records_url=records_url)) as stores:
        await asyncio.wait_for(stores.failed.wait(), 10)
    assert isinstance(stores.failure, InvalidArgument)
    assert name in stores.failure.message
    assert not stores.healthy


async def test_a_newer_database_ends_the_watch(tmp_path):
    """An old process does not wait for a database that a newer version has migrated."""
    url = f"sqlite:///{tmp_path / 'records.db'}"
    Records.open(url).close()
    with sqlite3.connect(tmp_path / "records.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'newer'")
    database.close()
    async with watched(settings(tmp_path, records_url=url)) as stores:
        await asyncio.wait_for(stores.failed.wait(), 10)
    assert isinstance(stores.failure, FailedPrecondition)
    assert "newer milvine" in stores.failure.message


async def test_a_store_that_is_away_is_told_once(tmp_path, monkeypatch):
    """An absence is logged when it begins, with the store and what it says, and goes on."""
    monkeypatch.setattr("milvine.stores.RETRY_S", 0.01)
    connect, tries = Vectors.connect, []

    async def counted(*args, **options):
        tries.append(args)
        return await connect(*args, **options)

    monkeypatch.setattr(Vectors, "connect", counted)
    with capture_logs() as logs:
        async with watched(settings(tmp_path, vectors_timeout_s=0.05)) as stores:
            await until(lambda: len(tries) > 3)
    (told,) = logs
    assert (told["store"], told["log_level"]) == ("vectors", "warning")
    assert "does not answer" in told["message"]
    assert not stores.failed.is_set()
    assert not stores.connected.is_set()


async def test_no_folder_is_made_for_stores_elsewhere(tmp_path):
    """The folder of the embedded stores is made only where one of them needs it."""
    folder = tmp_path / "data"
    (port,) = free_ports(1)
    elsewhere = f"postgresql://nobody@127.0.0.1:{port}/none"
    given = settings(folder, records_url=elsewhere, artifacts_url=str(tmp_path / "models"))
    with capture_logs() as logs:
        async with watched(given):
            await until(lambda: len(logs) == 2)
    assert not folder.exists()
