"""Whom an item fits: the users of a release by the model's score, without those who had the item.

Who had it stands in the records, so an index can't leave them out: more are searched than asked
for, the best are looked up, and the search widens until there are enough. Where few users match a
filter, or an index runs dry, the users who match are scored one and all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import Side
from milvine.domain.hit import Found, Hit, SearchMethod
from milvine.records import Records
from milvine.retrieval.active import Active
from milvine.retrieval.index import Ask, Index
from milvine.retrieval.plan import Plan
from milvine.retrieval.stored import FEW_USERS, scored_users, with_fields
from milvine.vectors import Vectors

LIMITS = (1_024, 4_096, 16_384)
"""How many users a search asks for, one after the other until there are enough."""
WIDEST = LIMITS[-1:]
"""How many of a graph under a filter. It loses users (of 50,000 clustered ones it found .34 to .94
of the best 20), but where a half of the matching ones is asked for, Milvus 2.3.5 looks at all."""


@dataclass(frozen=True, slots=True)
class Whom:
    """Which users an audience can have."""

    item_id: str
    include_seen: bool = False
    """Whether those who had the item can be in it."""
    excluded: frozenset[str] = frozenset()
    """Users of earlier pages."""


@dataclass(frozen=True, slots=True)
class Reached:
    """Users whom an item fits, best first."""

    hits: tuple[Hit, ...]
    method: SearchMethod
    is_all: bool
    """Whether no more match."""


class Audiences:
    """Finds the users whom items fit."""

    def __init__(self, records: Records, vectors: Vectors, index: Index) -> None:
        self._records = records
        self._vectors = vectors
        self._index = index

    async def find(
        self,
        active: Active,
        plan: Plan,
        query: NDArray[np.float32],
        whom: Whom,
        *,
        timeout_s: float,
    ) -> Reached:
        """The best `plan.page_size` users for the vector of an item, (dimension,)."""
        search = _Search(self._vectors, self._index, active, plan, timeout_s)
        choice = _Choice(self._records, active.catalog.id, whom, plan.page_size)
        reached = await search.best(query, choice)
        return replace(reached, hits=tuple(await search.with_fields(reached.hits)))


class _Choice:
    """Picks those who can be in an audience; each user is looked up once."""

    def __init__(self, records: Records, catalog_id: str, whom: Whom, count: int) -> None:
        self._records = records
        self._catalog_id = catalog_id
        self._whom = whom
        self._has_it: dict[str, bool] = dict.fromkeys(whom.excluded, True)
        self.count = count

    async def of(self, found: Found) -> list[Hit]:
        """The best who can be in it, at most `count`; no more are looked up than needed."""
        chosen: list[Hit] = []
        start, size = 0, 2 * self.count
        while start < len(found) and len(chosen) < self.count:
            ids = found.ids[start : start + size]
            await self._look_up([id_ for id_ in ids if id_ not in self._has_it])
            chosen += found[start : start + size].without(
                {id_ for id_ in ids if self._has_it[id_]}, self.count - len(chosen)
            )
            start, size = start + size, 2 * size
        return chosen

    async def _look_up(self, user_ids: Sequence[str]) -> None:
        had: Collection[str] = ()
        if user_ids and not self._whom.include_seen:
            look = self._records.interactions.which_had
            had = await asyncio.to_thread(look, self._catalog_id, self._whom.item_id, user_ids)
        self._has_it.update((user_id, user_id in had) for user_id in user_ids)


class _Search:
    """The searches of one request."""

    def __init__(
        self, vectors: Vectors, index: Index, active: Active, plan: Plan, timeout_s: float
    ) -> None:
        self._vectors = vectors
        self._index = index
        self._active = active
        self._plan = plan
        self._ends = time.monotonic() + timeout_s
        self._spec = active.layout(Side.USER).scores
        self._is_scan = vectors.is_exact(self._spec)
        self._is_hard = bool(plan.expression) and not self._is_scan

    @property
    def _timeout_s(self) -> float:
        return self._ends - time.monotonic()

    async def best(self, query: NDArray[np.float32], choice: _Choice) -> Reached:
        """The best users, by the index where it can be trusted, else by all who match."""
        if self._is_hard and await self._count() <= FEW_USERS:
            return await self._by_all(query, choice)
        return await self._by_index(query, choice) or await self._by_all(query, choice)

    async def with_fields(self, hits: Sequence[Hit]) -> list[Hit]:
        """Hits with the fields to return."""
        lists = [list(hits)]
        (told,) = await with_fields(
            self._vectors, self._spec, self._plan.fields, lists, ends=self._ends
        )
        return told

    async def _by_index(self, query: NDArray[np.float32], choice: _Choice) -> Reached | None:
        """The best that the index finds; None where it may miss some."""
        for limit in WIDEST if self._is_hard else LIMITS:
            if limit < choice.count:
                continue
            ask = Ask(self._spec, limit, self._plan.expression, ())
            lane = self._active.catalog.id
            (found,) = await self._index.search(lane, ask, [query], timeout_s=self._timeout_s)
            hits = await choice.of(found)
            ran_dry = len(found) < limit
            if len(hits) == choice.count or (ran_dry and self._is_scan):
                return Reached(tuple(hits), SearchMethod.INDEX, len(hits) < choice.count)
            if ran_dry:
                break
        return None

    async def _by_all(self, query: NDArray[np.float32], choice: _Choice) -> Reached:
        """The best of all who match."""
        found = await scored_users(
            self._vectors, self._spec, self._plan.expression, query, ends=self._ends
        )
        hits = await choice.of(found)
        return Reached(tuple(hits), SearchMethod.EXACT, len(hits) < choice.count)

    async def _count(self) -> int:
        return await self._vectors.count_matching(
            self._spec, self._plan.expression, timeout_s=self._timeout_s
        )
