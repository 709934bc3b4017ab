"""A server process: the one place where the parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from prometheus_client import CollectorRegistry, start_http_server

from milvine.api import SERVICE_NAMES, Services, build_server
from milvine.models import families
from milvine.models.base import Family
from milvine.records import Records
from milvine.releases import Releases
from milvine.retrieval import ActiveReleases, Retriever
from milvine.settings import Settings
from milvine.stores import Stores
from milvine.vectors import Vectors

log = structlog.get_logger(__name__)

RESTART_S = 1.0
_Status = HealthCheckResponse.ServingStatus


class LiveServices(Services):
    """The use cases over stores that may be away; asked for then, they raise Unavailable."""

    def __init__(self, stores: Stores, settings: Settings) -> None:
        self._stores = stores
        self._settings = settings
        self._active: ActiveReleases | None = None
        self._retriever: tuple[Vectors, Retriever] | None = None

    @property
    def records(self) -> Records:
        """The records."""
        return self._stores.records

    @property
    def retriever(self) -> Retriever:
        """Retrieval over the stores as they are connected now."""
        vectors = self._stores.vectors
        if self._retriever is None or self._retriever[0] is not vectors:
            made = Retriever(self._stores.records, vectors, self._active_releases)
            self._retriever = (vectors, made)
        return self._retriever[1]

    @property
    def releases(self) -> Releases:
        """The releases; what they activate shows in retrieval at once."""
        return Releases(
            self._stores.records,
            self._stores.vectors,
            self._stores.artifacts,
            on_change=self._active_releases.forget,
        )

    @property
    def families(self) -> Mapping[str, Family[Any]]:
        """The families of models."""
        return families

    @property
    def call_timeout_s(self) -> float:
        """The seconds that a call may take which sets no deadline."""
        return self._settings.call_timeout_s

    @property
    def _active_releases(self) -> ActiveReleases:
        if self._active is None:
            self._active = ActiveReleases(
                self._stores.records, self._stores.artifacts, refresh_s=self._settings.refresh_s
            )
        return self._active


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers calls."""

    address: str
    stores: Stores


async def serve(
    settings: Settings, *, with_worker: bool, on_ready: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until SIGTERM or SIGINT, then let the calls in flight end."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with running(settings, with_worker=with_worker) as server:
        on_ready(server.address)
        await stopping.wait()
        log.info("stopping", drain_s=settings.drain_s)


@asynccontextmanager
async def running(settings: Settings, *, with_worker: bool) -> AsyncIterator[Running]:
    """Run a server; leaving it stops the parts in the order in which they depend on each other.

    Health says NOT_SERVING first, calls in flight end, then the worker, then the stores.
    """
    stores = Stores(settings)
    registry = CollectorRegistry()
    probe = health.aio.HealthServicer()
    server = build_server(LiveServices(stores, settings), health_servicer=probe, registry=registry)
    address = _bind(server, settings)
    watch = asyncio.create_task(stores.watch())
    follow = asyncio.create_task(_tell_health(stores, probe))
    worker = asyncio.create_task(_run_worker(stores)) if with_worker else None
    metrics = _serve_metrics(settings, registry)
    await server.start()
    log.info("serving", address=address)
    try:
        yield Running(address, stores)
    finally:
        await probe.enter_graceful_shutdown()
        await server.stop(settings.drain_s)
        await _cancel(follow, worker, watch)
        metrics()
        await stores.close()


def _bind(server: grpc.aio.Server, settings: Settings) -> str:
    target = f"{settings.host}:{settings.port}"
    if settings.tls_cert_file and settings.tls_key_file:
        pair = (settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes())
        port = server.add_secure_port(target, grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port(target)
    return f"{settings.host}:{port}"


async def _run_worker(stores: Stores) -> None:
    # An embedded Milvus belongs to the server: the worker attaches to it.
    await stores.connected.wait()
    await AttachedWorker().run()


async def _tell_health(stores: Stores, probe: health.aio.HealthServicer) -> None:
    """Say SERVING while the stores answer: the server as a whole, and each service."""
    while True:
        status = _Status.SERVING if stores.healthy else _Status.NOT_SERVING
        for name in ("", *SERVICE_NAMES):
            await probe.set(name, status)
        await asyncio.sleep(0.1 if not stores.healthy else 1.0)


def _serve_metrics(settings: Settings, registry: CollectorRegistry) -> Callable[[], None]:
    if not settings.metrics_port:
        return lambda: None
    http, thread = start_http_server(settings.metrics_port, settings.host, registry)

    def stop() -> None:
        http.shutdown()
        thread.join()

    return stop


class AttachedWorker:
    """A worker process that lives and dies with a server, started again if it dies alone."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def run(self) -> None:
        """Keep a worker running until cancelled."""
        try:
            while True:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "milvine", "worker", "--attached"),
                    stdin=PIPE,
                    start_new_session=True,  # Ctrl-C is for the server, which ends it in turn
                )
                code = await self._process.wait()
                log.warning("the worker ended; starting another", code=code)
                await asyncio.sleep(RESTART_S)
        finally:
            await asyncio.shield(self._stop())

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout=10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _cancel(*tasks: asyncio.Task[None] | None) -> None:
    for task in tasks:
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
