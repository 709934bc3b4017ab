"""Writing behind reading: the database works while the next batch is read and checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Batch = TypeVar("Batch")
Outcome = TypeVar("Outcome")

_WAITING = 2
"""How many batches may wait: enough that neither side idles, and little memory."""


def write_behind(
    write: Callable[[Batch], Outcome], batches: Iterable[Batch]
) -> Iterator[tuple[Batch, Outcome]]:
    """Yield each batch with what writing it gave, in order.

    One thread writes; `batches` is consumed in the caller's. An error of either ends the
    iteration, and what waits then is not written.
    """
    waiting: deque[tuple[Batch, Future[Outcome]]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="milvine-import")
    try:
        for batch in batches:
            waiting.append((batch, pool.submit(write, batch)))
            if len(waiting) > _WAITING:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(written: tuple[Batch, Future[Outcome]]) -> tuple[Batch, Outcome]:
    batch, future = written
    return batch, future.result()
