"""The whole service in the process of a test: a server and a worker over embedded stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from milvine.client import Client
from milvine.jobs.handlers import handlers
from milvine.jobs.runner import Runner
from milvine.releases import Sweeper
from milvine.server import running
from milvine.settings import Settings
from milvine.stores import Stores


@dataclass(frozen=True)
class Service:
    """A service that answers, and does what is asked of it."""

    client: Client
    stores: Stores
    artifacts: Path
    """The folder of the artifacts."""


@asynccontextmanager
async def whole_service(folder: Path) -> AsyncIterator[Service]:
    """Run a service with all its data in a folder."""
    artifacts = folder / "artifacts"
    settings = Settings(
        data_dir=folder, records_url="", vectors_uri="", artifacts_url=str(artifacts), port=0
    )
    async with running(settings, with_worker=False) as server:
        stores, stopping = server.stores, asyncio.Event()
        await asyncio.wait_for(stores.connected.wait(), 60)
        done_by = handlers(stores.records, stores.vectors, stores.artifacts, device="cpu")
        runner = Runner(stores.records, done_by, worker_id="w", lease_s=60)
        sweeper = Sweeper(stores.records, stores.vectors, stores.artifacts)
        async with asyncio.TaskGroup() as group, Client(server.address) as client:
            group.create_task(runner.run(stopping))
            group.create_task(sweeper.run(stopping))
            yield Service(client, stores, artifacts)
            stopping.set()
