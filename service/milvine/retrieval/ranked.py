"""Ranked answers: what the stores say of items goes into boosts, and into the choice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import Side, to_micros
from milvine.domain.hit import Explanation, Found, Hit, SearchMethod
from milvine.domain.ranking import Factor, NumberDecay, TimeDecay
from milvine.retrieval.active import Active
from milvine.retrieval.columns import Columns
from milvine.retrieval.matching import MOST_SCORED, Matchings
from milvine.retrieval.plan import PlannedBoost, PlannedRanking
from milvine.retrieval.popularity import Popular, most_popular
from milvine.retrieval.ranking import (
    NO_ROWS,
    Limit,
    Rows,
    Rules,
    Scores,
    Slate,
    boosted,
    choose,
    decayed,
    together,
)
from milvine.retrieval.search import MAX_LIMIT, Search
from milvine.retrieval.values import Values
from milvine.vectors import Vectors
from milvine.vectors.layout import directions

MOST_BOOSTED = MAX_LIMIT
"""Of a release over MOST_SCORED items, so many of the best by score are boosted; else all."""
_SPARE = 4
"""With caps, so many times the hits that are needed are looked at first."""
_MOST_AMONG = 4_096
"""The vector store is asked of so many items at once, whether they match."""


Factors: TypeAlias = NDArray[np.float64]
"""What scores are multiplied by, (n,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a request ranks by."""

    active: Active
    ranking: PlannedRanking
    moment: datetime
    """When it was asked, or its list's first page."""
    timeout_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Items that were chosen, best first."""

    rows: Rows
    scores: Scores
    bases: Scores
    """(n,): the scores before boosts"""


@dataclass(frozen=True, slots=True, eq=False)
class _Effect:
    """What a boost does to some items."""

    applies: NDArray[np.bool_]
    """(n,)"""
    factor: float | NDArray[np.float64]
    """The same for all, or (n,)."""

    @property
    def factors(self) -> NDArray[np.float64]:
        """What it multiplies scores by, (n,): 1 where it does not apply."""
        return np.where(self.applies, self.factor, 1.0)


class Ranker:
    """Ranks items of releases."""

    def __init__(self, vectors: Vectors, matchings: Matchings, columns: Columns) -> None:
        self._vectors = vectors
        self._matchings = matchings
        self._columns = columns

    async def rank(
        self, asked: Asked, slate: Slate, count: int, *, shown: Rows = NO_ROWS
    ) -> Ranked:
        """Boost scores, then choose the best of a slate, fewer than `count` where caps say so.

        Args:
            asked: What to rank by.
            slate: The items with their scores, those that were shown among them.
            count: How many to choose.
            shown: The hits of earlier pages, in their order.

        Raises:
            Unavailable: A store does not answer.
            DeadlineExceeded: It takes longer than the call allows.
        """
        factors = await self.factors(asked, slate.rows)
        return await self.choose(asked, slate, factors, count, shown=shown)

    async def factors(self, asked: Asked, rows: Rows) -> Factors | None:
        """What all boosts multiply the scores of rows by, (n,); None where there are none."""
        effects = await self._effects(asked, rows)
        return together([effect.factors for effect in effects]) if effects else None

    async def choose(
        self,
        asked: Asked,
        slate: Slate,
        factors: Factors | None,
        count: int,
        *,
        shown: Rows = NO_ROWS,
    ) -> Ranked:
        """The same by factors that are known, (n,) in the order of the slate."""
        caps = asked.ranking.caps
        values = await self._columns.read(
            asked.active,
            np.concatenate([slate.rows, shown]) if caps else NO_ROWS,
            labels=[cap.field for cap in caps],
            timeout_s=asked.timeout_s,
        )
        rules = _rules(asked, values)
        return await asyncio.to_thread(_ranked, slate, factors, count, rules, shown)

    async def applied(self, asked: Asked, rows: Rows) -> list[tuple[tuple[int, float], ...]]:
        """The boosts that apply to each row: the place of each, and the factor it comes to."""
        effects = await self._effects(asked, rows)
        factors = [effect.factors.tolist() for effect in effects]
        return [
            tuple((i, factors[i][at]) for i, one in enumerate(effects) if one.applies[at])
            for at in range(len(rows))
        ]

    async def _effects(self, asked: Asked, rows: Rows) -> list[_Effect]:
        boosts = asked.ranking.boosts
        values = await self._columns.read(
            asked.active,
            rows,
            numbers=[boost.field for boost in boosts if boost.field],
            timeout_s=asked.timeout_s,
        )
        masks = await asyncio.gather(
            *(self._applies(asked, boost.expression, rows) for boost in boosts)
        )
        return [
            _Effect(mask, _factor(boost, values, asked.moment))
            for boost, mask in zip(boosts, masks, strict=True)
        ]

    async def _applies(self, asked: Asked, expression: str, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows match, (n,)."""
        if not expression:
            return np.ones(len(rows), bool)
        active = asked.active
        matching = await self._matchings.of(active, expression, timeout_s=asked.timeout_s)
        if matching.pool is not None:
            return _mask(active, matching.pool.rows)[rows]
        return _mask(active, await self._matching_among(asked, expression, rows))[rows]

    async def _matching_among(self, asked: Asked, expression: str, rows: Rows) -> Rows:
        items = asked.active.served.items
        ids: list[str] = []
        for start in range(0, len(rows), _MOST_AMONG):
            some = items.take(rows[start : start + _MOST_AMONG])
            ids += await self._vectors.match(
                asked.active.layout(Side.ITEM).scores,
                expression=expression,
                among=some,
                limit=len(some),
                timeout_s=asked.timeout_s,
            )
        return items.rows(ids)


class RankedSearch:
    """The searches of one request that has a ranking."""

    def __init__(
        self, search: Search, ranker: Ranker, asked: Asked, count: int, *, explain: bool = False
    ) -> None:
        """Searches for `count` hits of each subject; `explain` tells of each how it was boosted."""
        self._search = search
        self._ranker = ranker
        self._asked = asked
        self._count = count
        self._explain = explain
        self._known: Factors | None = None

    async def best(
        self,
        queries: Sequence[NDArray[np.float32]],
        excluded: Sequence[frozenset[str]],
        shown: Rows = NO_ROWS,
    ) -> list[tuple[list[Hit], SearchMethod]]:
        """The hits of each query, with the fields to return.

        Where there are boosts, everything that matches is scored and boosted; of large releases,
        the MOST_BOOSTED best. Else the best by score are enough, but where caps rule most out.

        Args:
            queries: The queries, (dimension,) each.
            excluded: For each query, the ids that must not be among its hits.
            shown: The hits of earlier pages, which count as chosen; none of them is excluded.
        """
        early: list[tuple[Ranked, SearchMethod] | None] = [None] * len(queries)
        if not self._asked.ranking.boosts:
            early = await self._of_the_first(queries, excluded, shown)
        ranked = [
            one or await self._of_all(query, ids, shown)
            for one, query, ids in zip(early, queries, excluded, strict=True)
        ]
        lists = await self._hits([one for one, _ in ranked])
        return [(hits, method) for hits, (_, method) in zip(lists, ranked, strict=True)]

    async def popular(
        self, popular: Popular, excluded: Sequence[frozenset[str]], shown: Rows = NO_ROWS
    ) -> list[list[Hit]]:
        """The hits of subjects of whom nothing is known: what is popular, ranked."""
        return await self._hits([await self._of_popular(popular, ids, shown) for ids in excluded])

    async def of(self, slate: Slate) -> list[Hit]:
        """The hits among some items with their scores."""
        (hits,) = await self._hits([await self._chosen(slate, frozenset(), NO_ROWS)])
        return hits

    async def _of_the_first(
        self,
        queries: Sequence[NDArray[np.float32]],
        excluded: Sequence[frozenset[str]],
        shown: Rows,
    ) -> list[tuple[Ranked, SearchMethod] | None]:
        """The hits where they are among the best by score; None where that is not known."""
        ranking, needed = self._asked.ranking, len(shown) + self._count
        width = ranking.diversity.candidates if ranking.diversity else 0
        first = max(width, _SPARE * needed if ranking.caps else needed)
        found = await self._search.candidates(queries, excluded, first)
        chosen = [await self._chosen(self._slate(one.found), frozenset(), shown) for one in found]
        return [
            (one, candidates.method) if candidates.is_all or len(one.rows) == self._count else None
            for one, candidates in zip(chosen, found, strict=True)
        ]

    async def _of_all(
        self, query: NDArray[np.float32], excluded: frozenset[str], shown: Rows
    ) -> tuple[Ranked, SearchMethod]:
        scored = await self._search.everything(query)
        if scored is not None:
            slate = Slate.of(scored.rows, scored.scores)
            return await self._chosen_live(slate, excluded, shown), SearchMethod.EXACT
        (candidates,) = await self._search.candidates([query], [excluded], MOST_BOOSTED)
        slate = self._slate(candidates.found)
        return await self._chosen(slate, frozenset(), shown), candidates.method

    async def _of_popular(self, popular: Popular, excluded: frozenset[str], shown: Rows) -> Ranked:
        if not self._is_large:
            rows = np.sort(await self._search.all_matching())
            slate = Slate.of(rows, popular.scores[rows])
            return await self._chosen_live(slate, excluded, shown)
        active = self._asked.active
        (hits,) = await most_popular(
            self._search, active, popular, popular.rows, [excluded], MOST_BOOSTED
        )
        rows = active.served.items.rows([hit.id for hit in hits])
        return await self._chosen(Slate.of(rows, popular.scores[rows]), frozenset(), shown)

    async def _chosen_live(self, slate: Slate, excluded: frozenset[str], shown: Rows) -> Ranked:
        """What is chosen, where all of it still matches: what a look-up found may have changed."""
        while True:
            ranked = await self._chosen(slate, excluded, shown)
            ids = self._asked.active.served.items.take(ranked.rows)
            gone = frozenset(ids) - await self._search.matching(ids)
            if not gone:
                return ranked
            excluded |= gone

    async def _chosen(self, slate: Slate, excluded: frozenset[str], shown: Rows) -> Ranked:
        active = self._asked.active
        gone = _mask(active, active.served.items.rows(list(excluded)))[slate.rows]
        slate = slate.at(~gone) if gone.any() else slate
        if self._is_large and len(slate) > MOST_BOOSTED:
            slate = slate.at(np.argpartition(-slate.scores, MOST_BOOSTED)[:MOST_BOOSTED])
        factors = await self._factors(slate.rows)
        return await self._ranker.choose(self._asked, slate, factors, self._count, shown=shown)

    @property
    def _is_large(self) -> bool:
        return len(self._asked.active.served.items) > MOST_SCORED

    async def _factors(self, rows: Rows) -> Factors | None:
        """The factors of rows; those of all items are the same for each subject."""
        if not self._asked.ranking.boosts or self._is_large:
            return await self._ranker.factors(self._asked, rows)
        if self._known is None:
            every = np.arange(len(self._asked.active.served.items), dtype=np.int32)
            self._known = await self._ranker.factors(self._asked, every)
        return None if self._known is None else self._known[rows]

    async def _hits(self, lists: Sequence[Ranked]) -> list[list[Hit]]:
        """The hits of what was chosen, with the fields to return."""
        made = [
            _hits(self._asked.active, ranked, await self._explanations(ranked)) for ranked in lists
        ]
        return await self._search.with_fields(made)

    async def _explanations(self, ranked: Ranked) -> Sequence[Explanation | None]:
        if not self._explain:
            return [None] * len(ranked.rows)
        boosts = await self._ranker.applied(self._asked, ranked.rows)
        told = zip(ranked.bases.tolist(), boosts, strict=True)
        return [Explanation(base, boosts=applied) for base, applied in told]

    def _slate(self, found: Found) -> Slate:
        rows = self._asked.active.served.items.rows(found.ids)
        return Slate.of(rows, np.array(found.scores, np.float64))


def _hits(active: Active, ranked: Ranked, explanations: Sequence[Explanation | None]) -> list[Hit]:
    ids = active.served.items.take(ranked.rows)
    told = zip(ids, ranked.scores.tolist(), explanations, strict=True)
    return [Hit(id_, score, explanation=explanation) for id_, score, explanation in told]


def _ranked(slate: Slate, factors: Factors | None, count: int, rules: Rules, shown: Rows) -> Ranked:
    scores = slate.scores if factors is None else boosted(slate.scores, factors)
    places = choose(Slate(slate.rows, scores), count, rules, shown)
    return Ranked(slate.rows[places], scores[places], slate.scores[places])


def _rules(asked: Asked, values: Values) -> Rules:
    served = asked.active.served

    def tastes(rows: Rows) -> NDArray[np.float32]:
        return directions(served.item_vectors[rows], served.taste_dimension)

    caps = asked.ranking.caps
    limits = [Limit(values.labels[cap.field.name], cap.most) for cap in caps]
    return Rules(tastes, asked.ranking.diversity, limits)


def _factor(boost: PlannedBoost, values: Values, moment: datetime) -> float | NDArray[np.float64]:
    match boost.kind:
        case Factor(value):
            return value
        case NumberDecay(name, origin, half):
            return decayed(values.numbers[name], origin, half)
        case TimeDecay(name, given, half_life):
            micros = half_life.total_seconds() * 1e6
            return decayed(values.numbers[name], to_micros(given or moment), micros)


def _mask(active: Active, rows: Rows) -> NDArray[np.bool_]:
    """Which items of a release some rows are, (items,); rows of -1 are none."""
    mask = np.zeros(len(active.served.items), bool)
    mask[rows[rows >= 0]] = True
    return mask
