"""Searches with a ranking: which items are candidates for it, and the hits it makes of them.

A model with a scorer has one in any case: what is retrieved by inner product is ranked anew by the
whole model, before boosts and the choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milvine.domain.hit import Explanation, Found, Hit, SearchMethod
from milvine.models.base import MOST_RERANKED
from milvine.retrieval.active import Active
from milvine.retrieval.choice import MAX_LIMIT
from milvine.retrieval.matching import MOST_SCORED
from milvine.retrieval.popularity import Popular, most_popular
from milvine.retrieval.ranker import Asked, Factors, Ranked, Ranker, mask
from milvine.retrieval.ranking import Rows, Slate
from milvine.retrieval.reranking import Reader
from milvine.retrieval.search import Search

MOST_BOOSTED = MAX_LIMIT
"""Of a release over MOST_SCORED items, so many of the best by score are boosted; else all."""
_SPARE = 4
"""With caps, so many times the hits that are needed are looked at first."""


class RankedSearch:
    """The searches of one request that has a ranking, or whose model has a scorer."""

    def __init__(self, search: Search, ranker: Ranker, asked: Asked, count: int) -> None:
        """Searches for `count` hits of each subject."""
        self._search = search
        self._ranker = ranker
        self._asked = asked
        self._count = count
        self._known: Factors | None = None

    async def best(
        self,
        queries: Sequence[NDArray[np.float32]],
        excluded: Sequence[frozenset[str]],
        readers: Sequence[Reader | None],
    ) -> list[tuple[list[Hit], SearchMethod]]:
        """The hits of each query, with the fields to return.

        Where there are boosts, everything that matches is scored and boosted; of large releases,
        the MOST_BOOSTED best. Else the best by score are enough, but where caps rule most out.

        Args:
            queries: The queries, (dimension,) each.
            excluded: For each query, the ids that must not be among its hits; none that was shown,
                for the candidates have those, too.
            readers: For each query, what the model's scorer knows of the subject.
        """
        early: list[tuple[Ranked, SearchMethod] | None] = [None] * len(queries)
        if not self._asked.ranking.boosts:
            early = await self._of_the_first(queries, excluded, readers)
        ranked = [
            one or await self._of_all(*asked)
            for one, asked in zip(early, zip(queries, excluded, readers, strict=True), strict=True)
        ]
        lists = await self._hits([one for one, _ in ranked])
        return [(hits, method) for hits, (_, method) in zip(lists, ranked, strict=True)]

    async def popular(
        self, popular: Popular, excluded: Sequence[frozenset[str]]
    ) -> list[list[Hit]]:
        """The hits of subjects of whom nothing is known: what is popular, ranked."""
        return await self._hits([await self._of_popular(popular, ids) for ids in excluded])

    async def of(self, slate: Slate, reader: Reader | None) -> list[Hit]:
        """The hits among some items with their inner products."""
        (slate,) = await self._reranked([slate], [reader], most=len(slate))
        (hits,) = await self._hits([await self._chosen(slate, frozenset())])
        return hits

    async def _of_the_first(
        self,
        queries: Sequence[NDArray[np.float32]],
        excluded: Sequence[frozenset[str]],
        readers: Sequence[Reader | None],
    ) -> list[tuple[Ranked, SearchMethod] | None]:
        """The hits where they are among the best by score; None where that is not known."""
        ranking, needed = self._asked.ranking, len(self._asked.shown) + self._count
        width = ranking.diversity.candidates if ranking.diversity else 0
        first = max(width, _SPARE * needed if ranking.caps else needed)
        if self._asked.active.served.scorer is not None:
            first = max(first, MOST_RERANKED)
        found = await self._search.candidates(queries, excluded, first)
        slates = await self._reranked([self._slate(one.found) for one in found], readers)
        chosen = [await self._chosen(slate, frozenset()) for slate in slates]
        return [
            (one, candidates.method) if candidates.is_all or len(one.rows) == self._count else None
            for one, candidates in zip(chosen, found, strict=True)
        ]

    async def _of_all(
        self, query: NDArray[np.float32], excluded: frozenset[str], reader: Reader | None
    ) -> tuple[Ranked, SearchMethod]:
        scored = await self._search.everything(query)
        if scored is not None:
            slate = self._without(Slate.of(scored.rows, scored.scores), excluded)
            (slate,) = await self._reranked([slate], [reader])
            return await self._chosen_live(slate, frozenset()), SearchMethod.EXACT
        (candidates,) = await self._search.candidates([query], [excluded], MOST_BOOSTED)
        (slate,) = await self._reranked([self._slate(candidates.found)], [reader])
        return await self._chosen(slate, frozenset()), candidates.method

    async def _reranked(
        self,
        slates: Sequence[Slate],
        readers: Sequence[Reader | None],
        *,
        most: int = MOST_RERANKED,
    ) -> Sequence[Slate]:
        """The slates by the model's scorer, where it has one."""
        active = self._asked.active
        if active.served.scorer is None:
            return slates
        lane, scorer = active.catalog.id, active.served.scorer
        return await self._ranker.reranker.rerank(lane, scorer, slates, readers, most=most)

    async def _of_popular(self, popular: Popular, excluded: frozenset[str]) -> Ranked:
        if not self._is_large:
            rows = np.sort(await self._search.all_matching())
            slate = Slate.of(rows, popular.scores[rows])
            return await self._chosen_live(slate, excluded)
        active = self._asked.active
        (hits,) = await most_popular(
            self._search, active, popular, popular.rows, [excluded], MOST_BOOSTED
        )
        rows = active.served.items.rows([hit.id for hit in hits])  # popular ones are known
        return await self._chosen(Slate.of(rows, popular.scores[rows]), frozenset())

    async def _chosen_live(self, slate: Slate, excluded: frozenset[str]) -> Ranked:
        """What is chosen, where all of it still matches: what a look-up found may have changed."""
        while True:
            ranked = await self._chosen(slate, excluded)
            ids = self._asked.active.served.items.take(ranked.rows)
            gone = frozenset(ids) - await self._search.matching(ids)
            if not gone:
                return ranked
            excluded |= gone

    async def _chosen(self, slate: Slate, excluded: frozenset[str]) -> Ranked:
        slate = self._without(slate, excluded)
        if self._is_large and len(slate) > MOST_BOOSTED:
            slate = slate.at(np.argpartition(-slate.scores, MOST_BOOSTED)[:MOST_BOOSTED])
        factors = await self._factors(slate.rows)
        return await self._ranker.choose(self._asked, slate, factors, self._count)

    def _without(self, slate: Slate, excluded: frozenset[str]) -> Slate:
        active = self._asked.active
        gone = mask(active, active.served.items.rows(list(excluded)))[slate.rows]
        return slate.at(~gone) if gone.any() else slate

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
        if not self._asked.explain:
            return [None] * len(ranked.rows)
        boosts = await self._ranker.applied(self._asked, ranked.rows)
        told = zip(ranked.bases.tolist(), boosts, strict=True)
        return [Explanation(base, boosts=applied) for base, applied in told]

    def _slate(self, found: Found) -> Slate:
        rows = self._asked.active.served.items.rows(found.ids)
        known = rows >= 0  # the store may have items that came a moment ago
        return Slate.of(rows[known], np.array(found.scores, np.float64)[known])


def _hits(active: Active, ranked: Ranked, explanations: Sequence[Explanation | None]) -> list[Hit]:
    ids = active.served.items.take(ranked.rows)
    told = zip(ids, ranked.scores.tolist(), explanations, strict=True)
    return [Hit(id_, score, explanation=explanation) for id_, score, explanation in told]
