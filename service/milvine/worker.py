"""A worker process: it does operations, and carries changes into live releases."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import structlog

from milvine.jobs.handlers import handlers
from milvine.jobs.runner import Runner
from milvine.releases import Follower
from milvine.settings import Settings
from milvine.stores import Stores
from milvine.training.device import resolve_device

log = structlog.get_logger(__name__)


async def work(settings: Settings, *, attached: bool) -> None:
    """Work until a signal, or until the server that this worker is attached to is gone.

    Args:
        settings: The stores, and the device to train on.
        attached: Whether stdin is a pipe from a server, whose end means to stop.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    stores = Stores(settings)
    tasks = [asyncio.create_task(stores.watch())]
    if attached:
        tasks.append(asyncio.create_task(_stop_with_server(stopping)))
    try:
        await _first(stores.connected, stopping)
        if not stopping.is_set():
            await _work(settings, stores, stopping)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await stores.close()


async def _work(settings: Settings, stores: Stores, stopping: asyncio.Event) -> None:
    worker_id = f"{socket.gethostname()}-{os.getpid()}"
    records, vectors, artifacts = stores.records, stores.vectors, stores.artifacts
    device = resolve_device(settings.device)
    runner = Runner(
        records,
        handlers(records, vectors, artifacts, device=device),
        worker_id=worker_id,
        lease_s=settings.lease_s,
    )
    follower = Follower(records, vectors, artifacts, worker_id=worker_id)
    log.info("worker started", worker=worker_id, device=device)
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.run(stopping))
        group.create_task(follower.run(stopping))


async def _stop_with_server(stopping: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()  # returns when the other end is closed, however the server ended
    stopping.set()


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of several events is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
