"""How calls are made: deadlines, metadata, retries, errors, pages and batches."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from milvine.client.errors import RpcError

T = TypeVar("T")
Metadata: TypeAlias = Sequence[tuple[str, str]]
# A method of a stub, and its messages: grpc has no types.
Method: TypeAlias = Callable[..., Any]

_MAX_MESSAGE_BYTES = 64 * 2**20
_REPEATABLE = {
    "milvine.v1.CatalogService": "GetCatalog ListCatalogs UpdateCatalog",
    "milvine.v1.ItemService": "UpsertItems GetItem BatchGetItems ListItems DeleteItems",
    "milvine.v1.UserService": "UpsertUsers GetUser BatchGetUsers ListUsers DeleteUsers",
    "milvine.v1.InteractionService": "RecordInteractions ListInteractions",
    "milvine.v1.ModelService": "GetModel ListModels",
    "milvine.v1.ReleaseService": "GetRelease ListReleases ActivateRelease",
    "milvine.v1.RetrievalService": (
        "Recommend BatchRecommend SimilarItems SimilarUsers GetEmbeddings SearchItems"
    ),
    "google.longrunning.Operations": "GetOperation ListOperations WaitOperation CancelOperation",
}
"""The methods that may be sent twice without harm.

Interactions are known again by an id or a time, which the client gives those without. A second
EraseUser would do no harm, but take its share of the receipt's counts.
"""


def channel_options() -> list[tuple[str, str | int]]:
    """Large messages, a sign of life on silent connections, and retries where they do no harm."""
    methods = [
        {"service": service, "method": method}
        for service, names in _REPEATABLE.items()
        for method in names.split()
    ]
    retries = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {"methodConfig": [{"name": methods, "retryPolicy": retries}]}
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.per_rpc_retry_buffer_size", _MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 60_000),
    ]


@dataclass(frozen=True, slots=True)
class Caller:
    """Makes calls with a deadline, and raises RpcError where they fail."""

    timeout_s: float
    metadata: Metadata = field(default=())

    async def call(
        self, method: Callable[..., Awaitable[T]], request: Message, timeout_s: float | None = None
    ) -> T:
        """The answer of a unary call."""
        deadline_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            return await method(request, timeout=deadline_s, metadata=self.metadata)
        except grpc.aio.AioRpcError as exc:
            raise RpcError.of_call(exc) from exc

    async def stream(self, method: Method, request: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - any message or stream of them
        """Yield the answers of a streaming call, which has no deadline."""
        try:
            async for response in method(request, metadata=self.metadata):
                yield response
        except grpc.aio.AioRpcError as exc:
            raise RpcError.of_call(exc) from exc

    async def pages(self, method: Method, request: Any, rows: str) -> AsyncIterator[Any]:  # noqa: ANN401 - any message
        """Yield the rows of all pages of a list."""
        request.page_size = 1_000
        while True:
            page = await self.call(method, request)
            for row in getattr(page, rows):
                yield row
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


async def batched(
    elements: Iterable[T] | AsyncIterable[T], size: int
) -> AsyncIterator[Sequence[T]]:
    """Yield the elements in lists of `size`; the last one may be shorter."""
    if isinstance(elements, AsyncIterable):
        async for batch in _batched_async(elements, size):
            yield batch
        return
    source = iter(elements)
    while some := list(islice(source, size)):
        yield some


async def _batched_async(elements: AsyncIterable[T], size: int) -> AsyncIterator[Sequence[T]]:
    batch: list[T] = []
    async for element in elements:
        batch.append(element)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
