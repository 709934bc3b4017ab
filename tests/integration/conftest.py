"""The stores that use cases run over: all embedded, and as a deployment has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from milvine.artifacts import Artifacts
from milvine.records import Records
from milvine.vectors import Vectors
from tests.servers.milvus import run_lite
from tests.servers.postgres import fresh_database


@dataclass(frozen=True)
class Urls:
    """Where the stores of one kind of deployment are."""

    records: str
    vectors: str
    artifacts: str


@dataclass(frozen=True)
class Stores:
    """Open stores."""

    records: Records
    vectors: Vectors
    artifacts: Artifacts


@pytest.fixture(scope="session", params=["embedded", "deployed"])
def urls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Urls]:
    """SQLite with Milvus Lite, and PostgreSQL with a Milvus server."""
    folder = Path(tmp_path_factory.mktemp(request.param))
    artifacts = str(folder / "artifacts")
    if request.param == "embedded":
        with run_lite(folder) as uri:
            yield Urls(f"sqlite:///{folder / 'records.db'}", uri, artifacts)
    else:
        database = fresh_database(request.getfixturevalue("postgres_url"))
        yield Urls(database, request.getfixturevalue("milvus_uri"), artifacts)


@pytest.fixture(scope="session")
def records(urls: Urls) -> Iterator[Records]:
    """The records, shared by tests that use catalogs of their own."""
    opened = Records.open(urls.records)
    yield opened
    opened.close()


@pytest.fixture
async def stores(urls: Urls, records: Records) -> AsyncIterator[Stores]:
    """The stores on this test's event loop."""
    async with open_stores(urls, records) as opened:
        yield opened


@asynccontextmanager
async def open_stores(urls: Urls, records: Records) -> AsyncIterator[Stores]:
    """The stores on the event loop that runs."""
    vectors = await Vectors.connect(urls.vectors)
    yield Stores(records, vectors, Artifacts(urls.artifacts))
    await vectors.close()
