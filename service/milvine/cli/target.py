"""Which server a command calls: a named one, the configured one, or its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from milvine.cli.configuration import load_settings
from milvine.cli.output import Output
from milvine.client import Client, RpcError
from milvine.logs import configure_logs

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
        RpcError: No server answers.
    """
    async with contextlib.AsyncExitStack() as stack:
        address = server or await _address(stack, output, needs_worker=needs_worker)
        if not await _gets_ready(address):
            raise _no_server(address)
        yield await stack.enter_async_context(Client(address)), address


async def _address(stack: contextlib.AsyncExitStack, output: Output, *, needs_worker: bool) -> str:
    settings = load_settings()
    configured = f"{settings.host}:{settings.port}"
    if settings.port and await _answers(configured):
        return configured
    output.note(
        f"No server at {configured}; using one inside this command, on {settings.data_dir}."
    )
    return await stack.enter_async_context(_own_server(with_worker=needs_worker))


async def _answers(address: str) -> bool:
    """Whether a gRPC server tells its health there."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(HealthCheckRequest(), timeout=HEALTH_S)
        except grpc.aio.AioRpcError:
            return False
    return True


async def _gets_ready(address: str) -> bool:
    """Whether a server answers; waits for one that is starting.

    One that has not become healthy by then will say itself what is wrong.
    """
    is_there = False
    async with grpc.aio.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(HealthCheckRequest(), timeout=START_S)
        try:
            async for health in watch:
                is_there = True
                if health.status != HealthCheckResponse.NOT_SERVING:
                    return True
        except grpc.aio.AioRpcError as error:
            # A server that tells no health is one, too.
            return is_there or error.code() is grpc.StatusCode.UNIMPLEMENTED
    return is_there


@asynccontextmanager
async def _own_server(*, with_worker: bool) -> AsyncIterator[str]:
    """Run a server on a free port of this machine; yields its address."""
    from milvine.server import running  # noqa: PLC0415 - torch takes seconds to load

    os.environ.setdefault("MILVINE_LOG_LEVEL", "error")  # the worker process inherits it
    settings = load_settings()
    configure_logs(settings)
    private = settings.model_copy(
        update={"host": "127.0.0.1", "port": 0, "metrics_port": 0, "drain_s": 1.0}
    )
    async with running(private, with_worker=with_worker) as server:
        yield server.address


def _no_server(address: str) -> RpcError:
    return RpcError(
        grpc.StatusCode.UNAVAILABLE,
        f"no milvine server answers at {address}; start one with `milvine serve`, "
        "or name another with --server",
        status_pb2.Status(),
    )
