"""The connection to a Milvus: one channel, a deadline on every call, and one table of errors.

It speaks Milvus's gRPC protocol through the messages that pymilvus generates, not through
pymilvus's clients. Those retry for minutes, share hidden connections, log tracebacks, accept
misspelt arguments, and spend four to eight times the CPU of the messages alone, on writes (a
dict per row) as on searches (an object per hit).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import grpc
from pymilvus.grpc_gen.common_pb2 import ClientInfo, Status
from pymilvus.grpc_gen.milvus_pb2 import ConnectRequest
from pymilvus.grpc_gen.milvus_pb2_grpc import MilvusServiceStub

from milvine.domain.errors import DeadlineExceeded, MilvineError
from milvine.vectors.errors import check_status, from_grpc, unavailable

Message: TypeAlias = Any
"""A generated message; pymilvus ships them without types."""
Method: TypeAlias = Callable[..., Awaitable[Message]]
Metadata: TypeAlias = tuple[tuple[str, str], ...]

_POLL_S = 0.05
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # By default the second call after a server has come back may wait for two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class Connection:
    """A channel to one Milvus, which reconnects by itself."""

    def __init__(self, uri: str, *, token: str, database: str) -> None:
        self._channel = _channel(uri)
        self._metadata = _metadata(token, database)
        self.rpc: MilvusServiceStub = MilvusServiceStub(self._channel)

    async def hello(self, *, timeout_s: float) -> str:
        """Wait for the server and return its version; an empty one is Lite's."""
        info = ClientInfo(sdk_type="Python", sdk_version="milvine")
        request = ConnectRequest(client_info=info)
        try:
            reply = await self.rpc.Connect(
                request, timeout=timeout_s, metadata=self._metadata, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise _unanswered(error) from error
        check_status(reply.status)
        return str(reply.server_info.build_tags)

    def within(self, timeout_s: float) -> Calls:
        """Calls that end within so many seconds together."""
        return Calls(self.rpc, self._metadata, time.monotonic() + timeout_s)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls that share one deadline."""

    rpc: MilvusServiceStub
    _metadata: Metadata
    _end: float

    async def send(self, method: Method, request: Message) -> Message:
        """Send a request and return the reply, checked; raises the domain's errors only."""
        try:
            reply = await method(request, timeout=self._left_s(), metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_grpc(error) from error
        check_status(reply if isinstance(reply, Status) else reply.status)
        return reply

    async def pause(self) -> None:
        """Wait a little before asking again."""
        await asyncio.sleep(min(_POLL_S, self._left_s()))

    def _left_s(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left


def _channel(uri: str) -> grpc.aio.Channel:
    if uri.startswith("unix:"):
        return grpc.aio.insecure_channel(uri, options=_OPTIONS)
    parts = urlsplit(uri)
    if parts.scheme == "https":
        address = f"{parts.hostname}:{parts.port or 443}"
        return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(), options=_OPTIONS)
    address = f"{parts.hostname}:{parts.port or 19530}"
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


def _metadata(token: str, database: str) -> Metadata:
    pairs = []
    if token:
        pairs.append(("authorization", base64.b64encode(token.encode()).decode()))
    if database:
        pairs.append(("dbname", database))
    return tuple(pairs)


def _unanswered(error: grpc.RpcError) -> MilvineError:
    """The error of a first call: a server that is not there in time is not available."""
    told = from_grpc(error)
    return unavailable() if isinstance(told, DeadlineExceeded) else told
