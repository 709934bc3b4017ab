"""A worker process: it does operations, carries changes into live releases, and tidies up."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable

import structlog

from milvine.attached import until_parted
from milvine.events import first_of, stop_signal
from milvine.jobs.handlers import handlers
from milvine.jobs.runner import Runner
from milvine.releases import Follower, Sweeper
from milvine.settings import Settings
from milvine.stores import Stores
from milvine.text import text_encoder
from milvine.training.device import resolve_device

log = structlog.get_logger(__name__)


async def work(
    settings: Settings, *, attached: bool, on_start: Callable[[], None] = lambda: None
) -> None:
    """Work until a signal, or until the server that this worker is attached to is gone.

    Args:
        settings: The stores, and the device to train on.
        attached: Whether stdin is a pipe from a server, whose end means to stop.
        on_start: Called once a signal ends it well.

    Raises:
        MilvineError: A setting is wrong, or a store can never be there.
    """
    stopping = stop_signal()
    on_start()
    stores = Stores(settings)
    tasks = [asyncio.create_task(stores.watch())]
    if attached:
        tasks.append(asyncio.create_task(_stop_when_parted(stopping)))
    try:
        await first_of(stores.connected, stores.failed, stopping)
        if stores.failure is not None:
            raise stores.failure
        if not stopping.is_set():
            await _work(settings, stores, stopping)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await stores.close()


async def _work(settings: Settings, stores: Stores, stopping: asyncio.Event) -> None:
    # Workers in containers can share a host's name and a pid.
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    records, vectors, artifacts = stores.records, stores.vectors, stores.artifacts
    device = resolve_device(settings.device)
    encoder = text_encoder(settings.text_encoder)
    runner = Runner(
        records,
        handlers(records, vectors, artifacts, device=device, encoder=encoder),
        worker_id=worker_id,
        lease_s=settings.lease_s,
    )
    sweeper = Sweeper(records, vectors, artifacts)
    follower = Follower(records, vectors, artifacts, worker_id=worker_id)
    log.info("worker started", worker=worker_id, device=device)
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stopping))
        group.create_task(follower.run(stopping))
        group.create_task(sweeper.run(stopping))


async def _stop_when_parted(stopping: asyncio.Event) -> None:
    await until_parted()
    stopping.set()
