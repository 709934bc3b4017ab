"""Searches of one request: by the index, or exactly where an index would lose results."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import Side
from milvine.domain.hit import Found, Hit, SearchMethod
from milvine.models.serving import ServingModel
from milvine.retrieval.active import Active
from milvine.retrieval.choice import (
    FIELDS_WITH_SEARCH,
    MOST_DROPPED,
    MOST_FETCHED,
    WIDE,
    glance,
    limit_of,
    method_for,
)
from milvine.retrieval.exact import Candidates, Check, Exact
from milvine.retrieval.index import Ask, Index
from milvine.retrieval.longest_first import LongestFirst
from milvine.retrieval.matching import EVERYTHING, MOST_SCORED, Matching
from milvine.retrieval.plan import Plan
from milvine.retrieval.scoring import Pool, Question
from milvine.retrieval.stored import FEW_USERS, scored_users, with_fields
from milvine.vectors import CollectionSpec, Vectors

__all__ = ["Candidates", "Scored", "Search"]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Items with their scores."""

    rows: NDArray[np.int32]
    """(n,): rows of the release's items, ascending."""
    scores: NDArray[np.float32]
    """(n,)"""


@dataclass(frozen=True, slots=True)
class _Space:
    """In which the items of a release are searched: by score, or by direction."""

    spec: CollectionSpec
    whole: Callable[[ServingModel], Awaitable[Pool]]
    """All items of a model."""


class Search:
    """The searches of one request in one release."""

    def __init__(
        self,
        vectors: Vectors,
        index: Index,
        exact: Exact,
        active: Active,
        plan: Plan,
        *,
        timeout_s: float,
    ) -> None:
        self._vectors = vectors
        self._index = index
        self._exact = exact
        self._active = active
        self._plan = plan
        self.ends = time.monotonic() + timeout_s
        """Until when, by the monotonic clock, it may take."""
        self._items = active.layout(Side.ITEM).scores
        self._is_exact = vectors.is_exact(self._items)

    @property
    def _timeout_s(self) -> float:
        return self.ends - time.monotonic()

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
        space = _Space(self._items, self._exact.scorer.all_by_score)
        questions = [Question(*one, count) for one in zip(queries, excluded, strict=True)]
        return await self._answers(space, questions)

    async def everything(self, query: NDArray[np.float32]) -> Scored | None:
        """All matching items with their scores; None where they are too many to be scored.

        They match as of the last look-up: `matching` says of some whether they still do.
        """
        found = await self._matching()
        if found.pool is None:
            return None
        scores = await asyncio.to_thread(found.pool.scores, query[np.newaxis])
        return Scored(found.pool.rows, scores[0])

    async def matching(self, among: Sequence[str]) -> frozenset[str]:
        """Those of some items that match."""
        return frozenset(await self._match(self._items, among=among, limit=len(among)))

    async def all_matching(self) -> NDArray[np.int32]:
        """The rows of all items that match, in no order."""
        found = await self._matching()
        if found.pool is not None:
            return found.pool.rows
        rows = self._active.served.items.rows(await self._match(self._items))
        return rows[rows >= 0]

    async def nearest(
        self, side: Side, query: NDArray[np.float32], excluded: frozenset[str]
    ) -> tuple[list[Hit], SearchMethod]:
        """The rows of a side whose directions are nearest to a query, (taste dimension,)."""
        spec = self._active.layout(side).neighbours
        question = Question(query, excluded, self._plan.page_size)
        if side is Side.USER:
            candidates = await self._nearest_users(spec, question)
        else:
            space = _Space(spec, self._exact.scorer.all_by_direction)
            (candidates,) = await self._answers(space, [question])
        (hits,) = await self._with_fields(spec, [list(candidates.found)])
        return hits, candidates.method

    async def with_fields(self, lists: Sequence[list[Hit]]) -> list[list[Hit]]:
        """Lists of items with the fields to return, fetched where no search brought them."""
        return await self._with_fields(self._items, lists)

    async def _answers(self, space: _Space, questions: Sequence[Question]) -> list[Candidates]:
        """The best of all items that match, for each question."""
        if not questions:
            return []
        limit = self._glance(questions[0].count)
        early = await self._at_a_glance(space, questions, limit)
        left = [question for question, answer in zip(questions, early, strict=True) if not answer]
        late = iter(await self._in_depth(space, left, limit) if left else ())
        return [answer or next(late) for answer in early]

    def _glance(self, count: int) -> int:
        """How many hits to look at first; 0 where they would not do."""
        is_lossy = bool(self._plan.expression) and not self._is_exact
        return 0 if is_lossy else glance(count, is_shallow=self._is_shallow)

    async def _at_a_glance(
        self, space: _Space, questions: Sequence[Question], limit: int
    ) -> Sequence[Candidates | None]:
        """What the first hits of the index answer, for most of what is excluded is not among them.

        So requests share a search, however long the histories of their subjects are.
        """
        if not limit:
            return [None] * len(questions)
        lists = await self._search(space.spec, [question.query for question in questions], limit)
        return [
            self._by_index(question, hits, limit)
            for question, hits in zip(questions, lists, strict=True)
        ]

    async def _in_depth(
        self, space: _Space, questions: Sequence[Question], glanced: int
    ) -> list[Candidates]:
        """The best of all items that match, where the first `glanced` hits were not enough."""
        needed = [question.count + len(question.excluded) for question in questions]
        matching = await self._count() if self._has_to_count(needed) else None
        # Questions that are asked in the same way, for about as many hits, share a search.
        groups: defaultdict[int | None, list[int]] = defaultdict(list)
        for i, hits in enumerate(needed):
            method = method_for(
                is_exact=self._is_exact,
                total=len(self._active.served.items),
                matching=matching,
                needed=hits,
            )
            limit = self._limit(hits) if method is SearchMethod.INDEX else None
            groups[limit if limit and limit > glanced else None].append(i)
        found: dict[int, Candidates] = {}
        searches = [
            self._group(space, limit, {i: questions[i] for i in members}, found)
            for limit, members in groups.items()
        ]
        # Most requests have one subject: one search, which needs no task of its own.
        await (searches[0] if len(searches) == 1 else asyncio.gather(*searches))
        return [found[i] for i in range(len(questions))]

    @property
    def _is_small(self) -> bool:
        """Whether all items can be scored."""
        return len(self._active.served.items) <= MOST_SCORED

    @property
    def _is_shallow(self) -> bool:
        """Whether what lies behind the first hits is scored rather than searched for."""
        return self._is_small and not self._is_exact

    def _has_to_count(self, needed: Sequence[int]) -> bool:
        """Whether it depends on the number of matches how to search."""
        is_long = max(needed, default=0) > MOST_FETCHED
        return bool(self._plan.expression) and (is_long or not self._is_exact)

    def _limit(self, needed: int) -> int:
        """One of a few sizes, so that requests of like size share a search."""
        is_lossy = bool(self._plan.expression) and not self._is_exact
        return limit_of(max(needed, WIDE) if is_lossy else needed)

    async def _group(
        self,
        space: _Space,
        limit: int | None,
        questions: Mapping[int, Question],
        found: dict[int, Candidates],
    ) -> None:
        """Answer some questions into `found`: by the index where there is a limit."""
        left = dict(questions)
        if limit is not None:
            asked = [question.query for question in questions.values()]
            lists = await self._search(space.spec, asked, limit)
            for (i, question), hits in zip(questions.items(), lists, strict=True):
                if answer := self._by_index(question, hits, limit):
                    found[i] = answer
                    del left[i]
        if left:
            answers = await self._exactly(space, list(left.values()))
            found.update(zip(left, answers, strict=True))

    async def _search(
        self, spec: CollectionSpec, queries: Sequence[NDArray[np.float32]], limit: int
    ) -> Sequence[Found]:
        fields = self._plan.fields if limit <= FIELDS_WITH_SEARCH else ()
        ask = Ask(spec, limit, self._plan.expression, fields)
        lane = self._active.catalog.id
        return await self._index.search(lane, ask, queries, timeout_s=self._timeout_s)

    def _by_index(self, question: Question, hits: Found, limit: int) -> Candidates | None:
        """The best of what the index found; None where it may have lost some of them."""
        best, dropped = _without(hits, question.excluded, question.count)
        is_short = len(best) < question.count
        is_deep = dropped > MOST_DROPPED and self._is_shallow
        if is_deep or (is_short and not self._ran_dry(hits, limit)):
            return None
        return Candidates(best, is_short, SearchMethod.INDEX)

    def _ran_dry(self, found: Found, limit: int) -> bool:
        """Whether all that match were found: a scan that comes short has seen them all."""
        return self._is_exact and len(found) < limit

    async def _exactly(self, space: _Space, questions: Sequence[Question]) -> list[Candidates]:
        lane = self._active.catalog.id
        known = self._known(space)
        if known is not None:
            return await self._exact.best_known(lane, known, questions)
        pool = await self._pool(space)
        if pool is None:  # too many match
            beside = [self._beside(space.spec, question) for question in questions]
            return await asyncio.gather(*beside)
        check = Check(space.spec, self._plan.expression, self._plan.fields)
        return await self._exact.best(lane, pool, questions, check, ends=self.ends)

    def _known(self, space: _Space) -> LongestFirst | None:
        """All items, where only their scores are asked for and it is known that the store has them.

        So a deleted item may be found for as long as a release's news takes to come here.
        """
        if self._plan.expression or self._plan.fields or space.spec is not self._items:
            return None
        return self._exact.known.of(self._active)

    async def _pool(self, space: _Space) -> Pool | None:
        """What to score: what matches, or all that the model knows."""
        if not self._plan.expression:
            return await space.whole(self._active.served)
        found = (await self._matching()).pool
        if found is None or space.spec is self._items:
            return found
        whole = await space.whole(self._active.served)
        return Pool(whole.items, found.rows, whole.vectors, None)

    async def _beside(self, spec: CollectionSpec, question: Question) -> Candidates:
        """The best by the index, whose expression leaves the excluded ids out."""
        (best,) = await self._vectors.search(
            spec,
            question.query[np.newaxis],
            limit=self._limit(question.count),
            expression=self._plan.expression,
            without=question.excluded,
            timeout_s=self._timeout_s,
        )
        is_all = len(best) < question.count
        return Candidates(best[: question.count], is_all, SearchMethod.INDEX)

    async def _nearest_users(self, spec: CollectionSpec, question: Question) -> Candidates:
        """The nearest users: only the store has their vectors."""
        is_hard = bool(self._plan.expression) and not self._is_exact
        limit = self._limit(question.count + len(question.excluded))
        if not is_hard or await self._count_users(spec) > FEW_USERS:
            (hits,) = await self._search(spec, [question.query], limit)
            best, _ = _without(hits, question.excluded, question.count)
            is_short = len(best) < question.count
            if not is_short or self._ran_dry(hits, limit):
                return Candidates(best, is_short, SearchMethod.INDEX)
        found = await scored_users(
            self._vectors, spec, self._plan.expression, question.query, ends=self.ends
        )
        every, _ = _without(found, question.excluded, len(found))
        is_all = len(every) <= question.count
        return Candidates(every[: question.count], is_all, SearchMethod.EXACT)

    async def _count_users(self, spec: CollectionSpec) -> int:
        return await self._vectors.count_matching(
            spec, self._plan.expression, timeout_s=self._timeout_s
        )

    async def _count(self) -> int:
        return (await self._matching()).count

    async def _matching(self) -> Matching:
        """The items that match the filter, of which other requests mostly asked before."""
        return await self._exact.matchings.of(
            self._active, self._plan.expression, timeout_s=self._timeout_s
        )

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

    async def _with_fields(
        self, spec: CollectionSpec, lists: Sequence[list[Hit]]
    ) -> list[list[Hit]]:
        """The lists with the fields that were asked for, fetched where no search brought them."""
        return await with_fields(self._vectors, spec, self._plan.fields, lists, ends=self.ends)


def _without(found: Found, excluded: frozenset[str], count: int) -> tuple[Found, int]:
    """The best that are not excluded, and how many were dropped before the last of them."""
    if excluded.isdisjoint(found.ids[:count]):
        return found[:count], 0
    places = [at for at, id_ in enumerate(found.ids) if id_ not in excluded][:count]
    seen = places[-1] + 1 if len(places) == count else len(found)
    return _taken(found, places), seen - len(places)


def _taken(found: Found, places: Sequence[int]) -> Found:
    return Found(
        [found.ids[place] for place in places],
        [found.scores[place] for place in places],
        [found.rows[place] for place in places] if found.rows else (),
    )
