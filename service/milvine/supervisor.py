"""Several server processes at one port, kept running by one that serves nothing itself.

The supervisor holds what must outlive each of them: the port, the embedded Milvus, the worker and
the metrics. The kernel gives each connection to one of the processes (SO_REUSEPORT).
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

import structlog

from milvine import metrics
from milvine.attached import STOP_S, Attached, run_worker
from milvine.domain.errors import FailedPrecondition, NotSupported, Reason
from milvine.events import beside, first_of, stop_signal
from milvine.settings import Settings, joined, no_port
from milvine.stores import Stores
from milvine.tls import server_credentials
from milvine.vectors import LiteProcess

log = structlog.get_logger(__name__)


async def supervise(
    settings: Settings, *, with_worker: bool, on_ready: Callable[[str], None] = lambda _: None
) -> None:
    """Keep `settings.processes` servers running until SIGTERM or SIGINT, then let them drain.

    Raises:
        MilvineError: A setting is wrong, a store can never be there, or the first process ends
            before it listens.
    """
    stopping = stop_signal()
    _check(settings, with_worker=with_worker)
    async with AsyncExitStack() as parts:
        port = parts.enter_context(reserved(settings.host, settings.port))
        uri = await _vectors_uri(settings, parts)
        settings = settings.model_copy(update={"port": port, "vectors_uri": uri})
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="milvine-metrics-")))
        parts.enter_context(metrics.serve_metrics(settings, metrics.summed(folder)))
        stores = Stores(settings)
        parts.push_async_callback(stores.close)
        await parts.enter_async_context(beside(stores.watch()))
        if with_worker:
            work = run_worker(stores.connected, _shared(settings))
            await parts.enter_async_context(beside(work))
        members = [_member(settings, folder) for _ in range(settings.processes)]
        await parts.enter_async_context(beside(_run(members)))
        refused = [member.refused for member in members]
        for member in members:
            await first_of(stopping, stores.failed, member.started, *refused)
        _raise_failure(stores, members)
        if not stopping.is_set():
            log.info("serving", address=joined(settings.host, port), processes=len(members))
            on_ready(joined(settings.host, port))
        await first_of(stopping, stores.failed)
        log.info("stopping", drain_s=settings.drain_s)
    _raise_failure(stores, ())


def _raise_failure(stores: Stores, members: Sequence[Attached]) -> None:
    if stores.failure is not None:
        raise stores.failure
    if any(member.refused.is_set() for member in members):
        raise FailedPrecondition(
            "a server process can't start; what it said stands above", Reason.WRONG_STATE
        )


def _check(settings: Settings, *, with_worker: bool) -> None:
    """Refuse here, once, what each process would refuse."""
    if settings.tls_cert_file and settings.tls_key_file:
        server_credentials(settings.tls_cert_file, settings.tls_key_file)
    if with_worker and settings.device.startswith("cuda"):
        from milvine.training.device import (  # noqa: PLC0415 - loads torch, which else is spared
            resolve_device,
        )

        resolve_device(settings.device)


async def _vectors_uri(settings: Settings, parts: AsyncExitStack) -> str:
    """Where the Milvus is: this process owns an embedded one until the end, whoever dies."""
    if settings.lite_file is None:
        return settings.vectors_uri
    settings.make_data_dir()
    embedded = await asyncio.to_thread(LiteProcess.attach_or_open, settings.lite_file)
    parts.push_async_callback(asyncio.to_thread, embedded.close)
    return embedded.uri


async def _run(members: Sequence[Attached]) -> None:
    """Keep all running; the others start when the first has, as it may find what they would."""
    first, *others = members
    async with asyncio.TaskGroup() as group:
        group.create_task(first.run())
        await first_of(first.started, first.refused)
        if first.started.is_set():
            for other in others:
                group.create_task(other.run())


def _member(settings: Settings, folder: Path) -> Attached:
    address = ("--host", settings.host, "--port", str(settings.port))
    counts = {metrics.FOLDER_VARIABLE: str(folder)} if settings.metrics_port else {}
    return Attached(
        *("serve", "--member", "--json", "--no-worker", *address, "--metrics-port", "0"),
        environment=_shared(settings) | counts,
        stop_s=settings.drain_s + STOP_S,
        on_end=partial(metrics.forget, folder),
    )


def _shared(settings: Settings) -> dict[str, str]:
    return {"MILVINE_VECTORS_URI": settings.vectors_uri}


@contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Keep a port for this process and those that it starts; yields it, for 0 a free one.

    Raises:
        InvalidArgument: Another process listens there, or the host is no address of this machine.
        NotSupported: This system can't share a port.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise NotSupported("several processes can't share a port on this system; serve with one")
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        keeper = socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        raise no_port(host, port) from exc
    with keeper:
        try:
            # What listens there already is in the way of this, whether it would share or not.
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.bind(address)
        except OSError as exc:
            raise no_port(host, port) from exc
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield int(keeper.getsockname()[1])
