"""Searches of one request: by the index, and exactly where it comes short."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import Side
from milvine.domain.hit import Found, Hit, SearchMethod
from milvine.retrieval.active import Active
from milvine.retrieval.index import Ask, Index
from milvine.retrieval.plan import Plan
from milvine.vectors import CollectionSpec, Vectors

MAX_LIMIT = 16_384
"""The most hits that a Milvus returns to a query."""
LIMITS = (128, 512, 2_048, 8_192, MAX_LIMIT)
"""How many hits a search may ask for. Fewer sizes are fewer searches; candidates cost little."""
FIELDS_WITH_SEARCH = 128
"""Up to so many hits, their fields travel with the search; else they are fetched for the best."""
EVERYTHING = 2**31 - 1
MOST_SCORED = 200_000
"""Where more items match, they are not scored one and all."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What was found for one query."""

    found: Found
    """Best first; with the fields to return where the search brought them."""
    is_all: bool
    """Whether no more match."""
    method: SearchMethod


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Items with their scores."""

    rows: NDArray[np.int32]
    """(n,): rows of the release's items, ascending."""
    scores: NDArray[np.float32]
    """(n,)"""


class Search:
    """The searches of one request in one release."""

    def __init__(
        self, vectors: Vectors, index: Index, active: Active, plan: Plan, *, timeout_s: float
    ) -> None:
        self._vectors = vectors
        self._index = index
        self._active = active
        self._plan = plan
        self._timeout_s = timeout_s
        self._items = active.layout(Side.ITEM).scores
        self._matching: asyncio.Task[list[str]] | None = None

    async def best(
        self, queries: Sequence[NDArray[np.float32]], excluded: Sequence[frozenset[str]]
    ) -> list[tuple[list[Hit], SearchMethod]]:
        """The best items for each query, without its excluded ones, with the fields to return.

        Args:
            queries: The queries, (dimension,) each.
            excluded: For each query, the ids that must not be among its hits.
        """
        candidates = await self.candidates(queries, excluded, self._plan.page_size)
        lists = await self.with_fields([list(one.found) for one in candidates])
        return [(hits, one.method) for hits, one in zip(lists, candidates, strict=True)]

    async def candidates(
        self,
        queries: Sequence[NDArray[np.float32]],
        excluded: Sequence[frozenset[str]],
        count: int,
    ) -> list[Candidates]:
        """The `count` best matching items of each query by the model's score, best first.

        Args:
            queries: The queries, (dimension,) each.
            excluded: For each query, the ids that must not be among its candidates.
            count: How many; there are fewer only where no more match.
        """
        # Queries that need about as many hits share a search.
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for i, ids in enumerate(excluded):
            groups[_limit(count + len(ids))].append(i)
        found: dict[int, Candidates] = {}
        searches = [
            self._search_group(limit, members, queries, excluded, count, found)
            for limit, members in groups.items()
        ]
        # Most requests have one subject: one search, which needs no task of its own.
        await (searches[0] if len(searches) == 1 else asyncio.gather(*searches))
        return [found[i] for i in range(len(excluded))]

    async def everything(self, query: NDArray[np.float32]) -> Scored | None:
        """All matching items with their scores; None where they are too many to be scored."""
        ids = await self._match_once()
        if len(ids) > MOST_SCORED:
            return None
        rows = np.sort(self._active.served.items.rows(ids))
        return Scored(rows, self._active.served.item_vectors[rows] @ query)

    async def matching(self, among: Sequence[str]) -> frozenset[str]:
        """Those of some items that match."""
        return frozenset(await self._match(self._items, among=among, limit=len(among)))

    async def all_matching(self) -> NDArray[np.int32]:
        """The rows of all items that match, in no order."""
        return self._active.served.items.rows(await self._match_once())

    async def nearest(
        self, side: Side, query: NDArray[np.float32], excluded: frozenset[str]
    ) -> tuple[list[Hit], SearchMethod]:
        """The rows of a side whose directions are nearest to a query, (taste dimension,)."""
        spec = self._active.layout(side).neighbours
        limit = _limit(self._plan.page_size + len(excluded))
        (candidates,) = await self._search(spec, [query], limit)
        hits, method = candidates.without(excluded, self._plan.page_size), SearchMethod.INDEX
        if len(hits) < self._plan.page_size and not self._ran_dry(spec, candidates, limit):
            hits, method = await self._nearest_exactly(spec, query, excluded), SearchMethod.EXACT
        (best,) = await self._with_fields(spec, [hits])
        return best, method

    async def _search_group(
        self,
        limit: int,
        members: list[int],
        queries: Sequence[NDArray[np.float32]],
        excluded: Sequence[frozenset[str]],
        count: int,
        found: dict[int, Candidates],
    ) -> None:
        lists = await self._search(self._items, [queries[i] for i in members], limit)
        for i, hits in zip(members, lists, strict=True):
            best = _without(hits, excluded[i], count)
            if len(best) < count and not self._ran_dry(self._items, hits, limit):
                found[i] = await self._best_exactly(queries[i], excluded[i], count)
            else:
                found[i] = Candidates(best, len(best) < count, SearchMethod.INDEX)

    async def _search(
        self, spec: CollectionSpec, queries: Sequence[NDArray[np.float32]], limit: int
    ) -> Sequence[Found]:
        fields = self._plan.fields if limit <= FIELDS_WITH_SEARCH else ()
        ask = Ask(spec, limit, self._plan.expression, fields)
        lane = self._active.catalog.id
        return await self._index.search(lane, ask, queries, timeout_s=self._timeout_s)

    def _ran_dry(self, spec: CollectionSpec, found: Sequence[Hit], limit: int) -> bool:
        """Whether all that match were found: a scan that comes short has seen them all."""
        return self._vectors.is_exact(spec) and len(found) < limit

    async def _best_exactly(
        self, query: NDArray[np.float32], excluded: frozenset[str], count: int
    ) -> Candidates:
        ids = [i for i in await self._match_once() if i not in excluded]
        best = await asyncio.to_thread(self._score, query, ids, count)
        return Candidates(best, len(ids) <= count, SearchMethod.EXACT)

    def _score(self, query: NDArray[np.float32], ids: Sequence[str], count: int) -> Found:
        rows = self._active.served.items.rows(ids)
        return _top(ids, self._active.served.item_vectors[rows] @ query, count)

    async def _nearest_exactly(
        self, spec: CollectionSpec, query: NDArray[np.float32], excluded: frozenset[str]
    ) -> list[Hit]:
        ids = [i for i in await self._match(spec) if i not in excluded]
        rows = await self._vectors.fetch(spec, ids, with_vector=True, timeout_s=self._timeout_s)
        scored = [(row.id, row.vector @ query) for row in rows if row.vector is not None]
        found = [i for i, _ in scored]
        return list(_top(found, np.array([score for _, score in scored]), self._plan.page_size))

    async def _match_once(self) -> list[str]:
        """The items that match the filter, looked up once for all subjects of the request."""
        if self._matching is None:
            self._matching = asyncio.create_task(self._match(self._items))
        return await self._matching

    async def _match(
        self, spec: CollectionSpec, *, among: Sequence[str] | None = None, limit: int = EVERYTHING
    ) -> list[str]:
        return await self._vectors.match(
            spec,
            expression=self._plan.expression,
            among=among,
            limit=limit,
            timeout_s=self._timeout_s,
        )

    async def with_fields(self, lists: Sequence[list[Hit]]) -> list[list[Hit]]:
        """Lists of items with the fields to return, fetched where no search brought them."""
        return await self._with_fields(self._items, lists)

    async def _with_fields(
        self, spec: CollectionSpec, lists: Sequence[list[Hit]]
    ) -> list[list[Hit]]:
        """The lists with the fields that were asked for, fetched where no search brought them."""
        missing = {hit.id for hits in lists for hit in hits if not hit.fields}
        if not self._plan.fields or not missing:
            return list(lists)
        rows = await self._vectors.fetch(
            spec, sorted(missing), fields=self._plan.fields, timeout_s=self._timeout_s
        )
        fields = {row.id: row.fields for row in rows}
        return [
            [replace(hit, fields=fields.get(hit.id, hit.fields)) for hit in hits] for hits in lists
        ]


def _limit(needed: int) -> int:
    """One of a few sizes, so that requests of like size share a search."""
    return next((limit for limit in LIMITS if limit >= needed), MAX_LIMIT)


def _without(found: Found, excluded: frozenset[str], count: int) -> Found:
    """The best that are not excluded."""
    if excluded.isdisjoint(found.ids):
        return found[:count]
    places = [place for place, id_ in enumerate(found.ids) if id_ not in excluded][:count]
    return Found(
        [found.ids[place] for place in places],
        [found.scores[place] for place in places],
        [found.rows[place] for place in places] if found.rows else (),
    )


def _top(ids: Sequence[str], scores: NDArray[np.float32], count: int) -> Found:
    order = np.argsort(-scores, kind="stable")[:count]
    return Found([ids[i] for i in order], scores[order].tolist())
