"""Which items of a release match a filter: looked up in the store, and kept while nothing changes.

What is kept is of a revision of the release, so that a change of items shows once the release has
followed it. Reads of the store may miss the latest writes, so what was looked up soon after a
revision came is looked up once more.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import Side
from milvine.domain.errors import DeadlineExceeded
from milvine.retrieval.active import Active
from milvine.retrieval.scoring import Pool
from milvine.vectors import Vectors

MOST_SCORED = 200_000
"""Where more items match, only their number is kept: to look up so many takes a second."""
MOST_BYTES = 64 << 20
"""What all that is kept takes at most."""
SETTLED_S = 6.0
"""A read sees at least what was written so long ago; Milvus says 5 seconds."""
STALE_S = 1.0
"""What was up to date so lately is used while it is looked up anew, so that a filter that is asked
for all the time waits for no look-up while items change."""
LOOK_S = 30.0
"""A look-up may take so long; it goes on when its callers have given up."""
EVERYTHING = 2**31 - 1
MOST_AMONG = 4_096
"""The vector store is asked of so many items at once, whether they match."""

_Key: TypeAlias = tuple[str, str]
"""The id of a release, and an expression."""


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """The items of a release that match an expression."""

    count: int
    pool: Pool | None
    """These items; None where they are more than MOST_SCORED."""


@dataclass(slots=True, eq=False)
class _Entry:
    expression: str
    matching: Matching
    revision: int
    first: float
    """When this revision was first looked up."""
    is_settled: bool
    """Whether it was looked up long enough after that."""
    current_at: float = field(default_factory=time.monotonic)
    """When it was last known to be up to date."""

    @property
    def nbytes(self) -> int:
        pool = self.matching.pool
        return 2 * len(self.expression) + (pool.nbytes if pool else 0)

    def is_current(self, revision: int) -> bool:
        is_good = self.is_settled or time.monotonic() < self.first + SETTLED_S
        return self.revision == revision and is_good


class Matchings:
    """The items that match filters, kept up to a size; the longest unused go first."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._looks: dict[tuple[_Key, int], asyncio.Task[Matching]] = {}

    async def of(
        self, active: Active, expression: str, *, timeout_s: float, may_be_stale: bool = True
    ) -> Matching:
        """The items of a release that match an expression; all that the store has for "".

        Raises:
            Unavailable: The store does not answer.
            DeadlineExceeded: It takes longer than `timeout_s`; the look-up goes on.
        """
        key = (active.release.id, expression)
        entry = self._entries.get(key)
        now = time.monotonic()
        if entry and entry.is_current(active.revision):
            entry.current_at = now
            self._entries.move_to_end(key)
            return entry.matching
        look = self._looks.get((key, active.revision)) or self._start(key, active)
        if may_be_stale and entry and now - entry.current_at < STALE_S:
            return entry.matching
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(look)  # others wait for it, too
        except TimeoutError as fault:
            raise DeadlineExceeded from fault

    def _start(self, key: _Key, active: Active) -> asyncio.Task[Matching]:
        look = asyncio.create_task(self._look(active, key[1]))
        began = time.monotonic()
        self._looks[key, active.revision] = look
        look.add_done_callback(lambda done: self._end(key, active.revision, began, done))
        return look

    def _end(self, key: _Key, revision: int, began: float, look: asyncio.Task[Matching]) -> None:
        del self._looks[key, revision]
        if look.cancelled() or look.exception() is not None:
            return
        before = self._entries.pop(key, None)
        first = before.first if before and before.revision == revision else began
        is_settled = began - first >= SETTLED_S
        self._entries[key] = _Entry(key[1], look.result(), revision, first, is_settled)
        while sum(entry.nbytes for entry in self._entries.values()) > MOST_BYTES:
            self._entries.popitem(last=False)

    async def _look(self, active: Active, expression: str) -> Matching:
        spec = active.layout(Side.ITEM).scores
        count = await self._vectors.count_matching(spec, expression, timeout_s=LOOK_S)
        if count > MOST_SCORED:
            return Matching(count, None)
        rows = await self._rows(active, expression, count)
        served = active.served
        pool = await asyncio.to_thread(Pool.of, served.items, rows, served.item_vectors)
        return Matching(len(rows), pool)

    async def _rows(self, active: Active, expression: str, count: int) -> NDArray[np.int32]:
        """The rows of what matches, by way of what does not where that is less."""
        total = len(active.served.items)
        if not expression and count == total:
            return np.arange(total, dtype=np.int32)
        if expression and 2 * count > total and self._vectors.dialect.negates_calls:
            every = await self.of(active, "", timeout_s=LOOK_S)
            if every.pool is not None:
                others = await self._match(active, f"not ({expression})")
                return np.setdiff1d(every.pool.rows, others, assume_unique=True)
        return await self._match(active, expression)

    async def _match(self, active: Active, expression: str) -> NDArray[np.int32]:
        ids = await self._vectors.match(
            active.layout(Side.ITEM).scores,
            expression=expression,
            limit=EVERYTHING,
            timeout_s=LOOK_S,
        )
        return await asyncio.to_thread(_rows, active, ids)


def _rows(active: Active, ids: list[str]) -> NDArray[np.int32]:
    rows = np.sort(active.served.items.rows(ids))
    return rows[np.searchsorted(rows, 0) :]  # those that the model does not know are -1
