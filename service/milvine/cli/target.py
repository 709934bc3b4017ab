"""Which server a command calls: a named one, the configured one, or its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import grpc
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from milvine.cli.configuration import load_settings
from milvine.cli.options import Target
from milvine.cli.output import Output
from milvine.client import Client, RpcError
from milvine.events import first_of
from milvine.logs import configure_logs
from milvine.settings import Settings, joined
from milvine.tls import channel_credentials

LISTEN_S = 2.0
START_S = 30.0
_ANY = ("0.0.0.0", "::")  # noqa: S104 - dialled, not listened at


@dataclass(frozen=True, slots=True)
class _Server:
    """A server, and how to speak with it."""

    address: str
    credentials: grpc.ChannelCredentials | None = None
    """None: plaintext."""

    def channel(self) -> grpc.aio.Channel:
        """A connection to it."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address)
        return grpc.aio.secure_channel(self.address, self.credentials)


@asynccontextmanager
async def connected(
    target: Target, output: Output, *, needs_worker: bool
) -> AsyncIterator[tuple[Client, str]]:
    """A client of the server to call, and its address.

    Args:
        target: The server that the caller named; where nothing is named, in the settings neither,
            what listens at the configured address, and else one of this process's own.
        output: Where to say that the server is this process's own.
        needs_worker: Whether the call is of no use without a worker.

    Raises:
        RpcError: No server answers.
        InvalidArgument: A setting is wrong.
    """
    async with AsyncExitStack() as stack:
        settings = _settings(target)
        server = await _listening(settings)
        if server is None:
            server = await _own(stack, settings, output, needs_worker=needs_worker)
        elif not await _gets_ready(server):
            raise _no_server(server)
        client = Client(server.address, credentials=server.credentials)
        yield await stack.enter_async_context(client), server.address


def _settings(target: Target) -> Settings:
    """The settings of this process, with what the caller named in their place."""
    named = {
        "server": target.server,
        "server_tls": target.tls or None,
        "server_ca_file": target.ca_file,
    }
    return load_settings().model_copy(
        update={name: value for name, value in named.items() if value is not None}
    )


async def _listening(settings: Settings) -> _Server | None:
    """The server that is named, or what listens at the configured address.

    Where anything does, a server of this process's own would be a second one over the same stores,
    so that is never taken for an absence.
    """
    ca_file = settings.server_ca_file
    if settings.server:
        has_tls = settings.server_tls or ca_file is not None
        return _Server(settings.server, channel_credentials(ca_file) if has_tls else None)
    host = "localhost" if settings.host in _ANY else settings.host
    if not (settings.port and await _listens(host, settings.port)):
        return None
    ca_file = ca_file or settings.tls_cert_file
    has_tls = settings.server_tls or ca_file is not None
    address = joined(host, settings.port)
    return _Server(address, channel_credentials(ca_file) if has_tls else None)


async def _listens(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(LISTEN_S):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # also a timeout
        return False
    writer.close()
    return True


async def _gets_ready(server: _Server) -> bool:
    """Whether a server answers; waits for one that is starting.

    One that has not become healthy by then will say itself what is wrong.
    """
    is_there = False
    async with server.channel() as channel:
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


async def _own(
    stack: AsyncExitStack, settings: Settings, output: Output, *, needs_worker: bool
) -> _Server:
    configured = joined(settings.host, settings.port)
    output.note(
        f"No server at {configured}; using one inside this command, on {settings.data_dir}."
    )
    return _Server(await stack.enter_async_context(_own_server(with_worker=needs_worker)))


@asynccontextmanager
async def _own_server(*, with_worker: bool) -> AsyncIterator[str]:
    """Run a server on a free port of this machine, for this process alone; yields its address."""
    from milvine.server import running  # noqa: PLC0415 - torch takes seconds to load

    os.environ.setdefault("MILVINE_LOG_LEVEL", "error")  # the worker process inherits it
    settings = load_settings()
    configure_logs(settings)
    private = settings.model_copy(
        update={
            "host": "127.0.0.1",
            "port": 0,
            "metrics_port": 0,
            "drain_s": 1.0,
            "tls_cert_file": None,
            "tls_key_file": None,
        }
    )
    async with running(private, with_worker=with_worker) as server:
        stores = server.stores
        with suppress(TimeoutError):  # a store that is away is told by the call that needs it
            await asyncio.wait_for(first_of(stores.connected, stores.failed), START_S)
        if stores.failure is not None:
            raise stores.failure
        yield server.address


def _no_server(server: _Server) -> RpcError:
    hint = (
        "it may speak TLS (--tls or --ca-file FILE)"
        if server.credentials is None
        else "it may speak no TLS, or show a certificate for another name or of another authority"
    )
    return RpcError(
        grpc.StatusCode.UNAVAILABLE,
        f"no milvine server answers at {server.address}; start one with `milvine serve`, "
        f"or name another with --server; if one listens there, {hint}",
        status_pb2.Status(),
    )
