"""A server process: the one place where the parts are put together."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from prometheus_client import CollectorRegistry
from threadpoolctl import threadpool_limits

from milvine.api import SERVICE_NAMES, Services, build_server
from milvine.attached import run_worker, until_parted
from milvine.events import beside, first_of, stop_signal
from milvine.metrics import serve_metrics
from milvine.models import families
from milvine.models.base import Family
from milvine.records import Records
from milvine.releases import Releases
from milvine.retrieval import ActiveReleases, MappedItems, People, Popularity, Retriever, TextSearch
from milvine.settings import Settings, joined, no_port
from milvine.stores import Stores
from milvine.text import text_encoder
from milvine.tls import server_credentials
from milvine.training.device import resolve_device
from milvine.vectors import Vectors

log = structlog.get_logger(__name__)

_SWITCH_S = 0.001
"""How long a thread may keep the loop waiting: while writes streamed in, the slowest hundredth of
recommendations took 40 ms with Python's own 5 ms, and 30 so."""
_COLLECT_AFTER = (50_000, 20, 50)
"""The thresholds of the garbage collector, over 700, 10, 10: with those, it took a tenth of the
time of a request."""

SETTLE_S = 5.0

_Status = HealthCheckResponse.ServingStatus


class LiveServices(Services):
    """The use cases over stores that may be away; asked for then, they raise Unavailable."""

    def __init__(self, stores: Stores, settings: Settings) -> None:
        self._stores = stores
        self._settings = settings
        self._active: ActiveReleases | None = None
        self._people: People | None = None
        self._popularity: Popularity | None = None
        self._retriever: tuple[Vectors, Retriever] | None = None
        self._text_search: tuple[Vectors, TextSearch] | None = None

    @property
    def records(self) -> Records:
        """The records."""
        return self._stores.records

    @property
    def retriever(self) -> Retriever:
        """Retrieval over the stores as they are connected now."""
        vectors = self._stores.vectors
        if self._retriever is None or self._retriever[0] is not vectors:
            records = self._stores.records
            made = Retriever(
                records,
                self._placed(records),
                vectors,
                self._active_releases,
                self._counted(records),
            )
            self._retriever = (vectors, made)
        return self._retriever[1]

    @property
    def text_search(self) -> TextSearch:
        """Retrieval by text over the stores as they are connected now."""
        vectors = self._stores.vectors
        if self._text_search is None or self._text_search[0] is not vectors:
            records = self._stores.records
            placed, counted = self._placed(records), self._counted(records)
            made = TextSearch(vectors, placed, self._active_releases, counted)
            self._text_search = (vectors, made)
        return self._text_search[1]

    def _placed(self, records: Records) -> People:
        """What is remembered of users outlives a connection to the vector store, too."""
        if self._people is None:
            self._people = People(records, staleness_s=self._settings.staleness_s)
        return self._people

    def _counted(self, records: Records) -> Popularity:
        """Counts outlive a connection to the vector store, as they come from the records."""
        if self._popularity is None:
            self._popularity = Popularity(records)
        return self._popularity

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
                self._stores.records,
                self._stores.artifacts,
                refresh_s=self._settings.refresh_s,
                mapped=MappedItems(self._stores.records, self._stores.vectors),
            )
        return self._active


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers calls."""

    address: str
    stores: Stores


async def serve(
    settings: Settings,
    *,
    with_worker: bool,
    is_member: bool = False,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then let the calls in flight end.

    Args:
        settings: Where to serve, and over which stores.
        with_worker: Whether to keep a worker process beside it.
        is_member: Whether this is one of several processes of one supervisor, at one port.
        on_ready: Called with the address once it listens.

    Raises:
        MilvineError: A setting is wrong, or a store can never be there.
    """
    # What is loaded by now stays: a collection of garbage need not walk over it, nor come after
    # every few requests.
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    sys.setswitchinterval(_SWITCH_S)
    stopping = stop_signal()
    async with AsyncExitStack() as parts:
        if is_member:
            await parts.enter_async_context(beside(_stop_when_parted(stopping)))
        server = await parts.enter_async_context(
            running(settings, with_worker=with_worker, shares_port=is_member)
        )
        on_ready(server.address)
        await first_of(stopping, server.stores.failed)
        log.info("stopping", drain_s=settings.drain_s)
    if server.stores.failure is not None:
        raise server.stores.failure


@asynccontextmanager
async def running(
    settings: Settings, *, with_worker: bool, shares_port: bool = False
) -> AsyncIterator[Running]:
    """Run a server; leaving it stops the parts in the order in which they depend on each other.

    Health says NOT_SERVING first, calls in flight end, then the worker, then the stores.

    Raises:
        InvalidArgument: A setting is wrong.
    """
    if with_worker:
        resolve_device(settings.device)  # else the worker would end for it, again and again
    text_encoder(settings.text_encoder)
    stores = Stores(settings)
    registry = CollectorRegistry()
    probe = health.aio.HealthServicer()
    server = build_server(
        LiveServices(stores, settings),
        health_servicer=probe,
        registry=registry,
        shares_port=shares_port,
    )
    address = None if shares_port else _bind(server, settings)
    async with AsyncExitStack() as parts:
        # Requests solve many small systems: threads for one of them cost more than they bring.
        parts.enter_context(threadpool_limits(1, user_api="blas"))
        parts.push_async_callback(stores.close)
        parts.enter_context(serve_metrics(settings, registry))
        await parts.enter_async_context(beside(stores.watch()))
        if with_worker:
            await parts.enter_async_context(beside(run_worker(stores.connected)))
        await parts.enter_async_context(beside(_tell_health(stores, probe)))
        if address is None:
            await _settle(stores)
            address = _bind(server, settings)
        await server.start()
        parts.push_async_callback(server.stop, settings.drain_s)
        parts.push_async_callback(probe.enter_graceful_shutdown)
        log.info("serving", address=address)
        yield Running(address, stores)


def _bind(server: grpc.aio.Server, settings: Settings) -> str:
    """Listen; where that is."""
    target = joined(settings.host, settings.port)
    try:
        if settings.tls_cert_file and settings.tls_key_file:
            credentials = server_credentials(settings.tls_cert_file, settings.tls_key_file)
            port = server.add_secure_port(target, credentials)
        else:
            port = server.add_insecure_port(target)
    except RuntimeError as exc:  # grpc has no type of its own for it
        raise no_port(settings.host, settings.port) from exc
    return joined(settings.host, port)


async def _settle(stores: Stores) -> None:
    """Leave connections to the other processes until this one has its stores, or may never have."""
    with suppress(TimeoutError):
        await asyncio.wait_for(first_of(stores.connected, stores.failed), SETTLE_S)


async def _stop_when_parted(stopping: asyncio.Event) -> None:
    await until_parted()
    stopping.set()


async def _tell_health(stores: Stores, probe: health.aio.HealthServicer) -> None:
    """Say SERVING while the stores answer: the server as a whole, and each service."""
    while True:
        status = _Status.SERVING if stores.healthy else _Status.NOT_SERVING
        for name in ("", *SERVICE_NAMES):
            await probe.set(name, status)
        await asyncio.sleep(0.1 if not stores.healthy else 1.0)
