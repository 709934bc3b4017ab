"""Streams of batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import Protocol, TypeVar

from milvine.api.convert.values import required_id
from milvine.domain.errors import InvalidArgument


class Batch(Protocol):
    """A message of a stream of batches."""

    catalog_id: str


B = TypeVar("B", bound=Batch)
T = TypeVar("T")


async def with_catalog(batches: AsyncIterable[B]) -> AsyncIterator[tuple[str, B]]:
    """Yield each batch with the catalog of the stream, which only the first one must name."""
    stream_id = ""
    async for batch in batches:
        catalog_id = required_id(batch.catalog_id or stream_id, "catalog_id")
        if stream_id and catalog_id != stream_id:
            raise InvalidArgument.at("catalog_id", "must be the same in each message of a stream")
        stream_id = catalog_id
        yield stream_id, batch


async def ahead(source: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Yield the same elements in order, and prepare the next one while one is used."""

    async def step() -> T | None:
        return await anext(source, None)

    following = asyncio.create_task(step())
    try:
        while (element := await following) is not None:
            following = asyncio.create_task(step())
            yield element
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
