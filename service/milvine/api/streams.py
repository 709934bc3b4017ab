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


async def gathered(source: AsyncIterator[T], *, most: int) -> AsyncGenerator[list[T], None]:
    """Yield all elements that are ready, in order, and prepare the next ones while they are used.

    At most `most` are ready at a time; an error of the source comes after what was before it.
    """
    ready: list[T] = []
    room = asyncio.Semaphore(most)
    changed = asyncio.Event()

    async def fill() -> None:
        async for element in source:
            await room.acquire()
            ready.append(element)
            changed.set()

    filling = asyncio.create_task(fill())
    filling.add_done_callback(lambda _: changed.set())
    try:
        while ready or not filling.done():
            await changed.wait()
            changed.clear()
            some = ready.copy()
            ready.clear()
            for _ in some:
                room.release()
            if some:
                yield some
        await filling
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
