"""Which server a command calls: a named one, the configured one, or its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from milvine.cli.configuration import load_settings
from milvine.cli.output import Output
from milvine.client import Client, RpcError
from milvine.domain.errors import Reason, Unavailable
from milvine.logs import configure_logs
from milvine.settings import Settings

CONNECT_S = 0.5
HEALTH_S = 2.0
START_S = 30.0


@asynccontextmanager
async def connected(
    server: str | None, output: Output, *, needs_worker: bool
) -> AsyncIterator[tuple[Client, str]]:
    """A client of the server to call, and its address.

    Args:
        server: The server that the caller named; None looks for one at the configured address,
            and runs one of this process's own where there is none.
        output: Where to say that the server is this process's own.
        needs_worker: Whether the call is of no use without a worker.

    Raises:
        Unavailable: The stores of this process's own server do not answer.
    """
    async with contextlib.AsyncExitStack() as stack:
        address = server or await _address(stack, output, needs_worker=needs_worker)
        client = await stack.enter_async_context(Client(address))
        try:
            yield client, address
        except RpcError as error:
            # Without a reason it is not the service that answered.
            if error.code is grpc.StatusCode.UNAVAILABLE and not error.reason:
                raise _no_server(address) from error
            raise


async def _address(stack: contextlib.AsyncExitStack, output: Output, *, needs_worker: bool) -> str:
    settings = load_settings()
    configured = f"{settings.host}:{settings.port}"
    if settings.port and await _answers(settings.host, settings.port):
        return configured
    output.note(
        f"No server at {configured}; using one inside this command, on {settings.data_dir}."
    )
    return await stack.enter_async_context(_own_server(with_worker=needs_worker))


async def _answers(host: str, port: int) -> bool:
    """Whether a gRPC server tells its health there."""
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
    except (OSError, TimeoutError):
        return False
    async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_S)
        except grpc.aio.AioRpcError:
            return False
    return True


@asynccontextmanager
async def _own_server(*, with_worker: bool) -> AsyncIterator[str]:
    """Run a server on a free port; yields its address once its stores answer."""
    from milvine.server import running  # noqa: PLC0415 - torch takes seconds to load

    os.environ.setdefault("MILVINE_LOG_LEVEL", "warning")  # the worker process inherits it
    settings = load_settings()
    configure_logs(settings)
    private = settings.model_copy(
        update={"host": "127.0.0.1", "port": 0, "metrics_port": 0, "drain_s": 1.0}
    )
    async with running(private, with_worker=with_worker) as server:
        try:
            async with asyncio.timeout(START_S):
                await server.stores.connected.wait()
        except TimeoutError as exc:
            raise _no_stores(private) from exc
        yield server.address


def _no_server(address: str) -> RpcError:
    return RpcError(
        grpc.StatusCode.UNAVAILABLE,
        f"no milvine server answers at {address}; start one with `milvine serve`, "
        "or name another with --server",
        status_pb2.Status(),
    )


def _no_stores(settings: Settings) -> Unavailable:
    return Unavailable(
        f"the database or the vector store does not answer within {START_S:.0f} s; "
        "`milvine config` shows which they are",
        Reason.RECORDS_UNAVAILABLE if settings.records_url else Reason.VECTORS_UNAVAILABLE,
    )
