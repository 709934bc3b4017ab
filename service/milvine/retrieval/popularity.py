"""Popularity: which items of a release users had to do with most, lately or ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.domain.errors import DeadlineExceeded, LimitReached, Unavailable
from milvine.domain.hit import Found, Hit
from milvine.domain.query import Counting
from milvine.models.vocabulary import Vocabulary
from milvine.records import Records
from milvine.retrieval.active import Active
from milvine.retrieval.matching import MOST_AMONG
from milvine.retrieval.refreshed import Refreshed
from milvine.retrieval.search import Search

LEAST_S = 10.0
"""Counts are at least so many seconds in use before they are made anew."""
MOST_COUNTS = 32
"""How many different counts are kept: by release, half-life and event types."""
FALLBACK = Counting(timedelta(days=30))
"""What is popular for subjects of whom nothing is known. Measured on what new users of MovieLens
100K took to in their first week, thinned out to fewer events a day; see docs/architecture.md."""
PATIENCE_S = 1.0
"""How long a recommendation waits for counts before it takes those of the training data."""
MOST_LOOKED = 2_048
"""After a look at so many items it is few that match: the rest is those of an earlier look."""
_WIDER = 4
"""So many times the hits wanted are looked at first; from then on, so many times more each time."""

_Rows: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Popular:
    """How popular the items of a release are."""

    scores: NDArray[np.float64]
    """(items,): the decayed, weighted count of each row's interactions."""
    rows: _Rows
    """(items,): the most popular first; of equal ones that which more training users had."""

    def of_first(self, count: int) -> Popular:
        """The same of the first items: more of a release may have come, or fewer be known here."""
        known = len(self.scores)
        if count == known:
            return self
        if count < known:
            return Popular(self.scores[:count], self.rows[self.rows < count])
        added = np.arange(known, count, dtype=self.rows.dtype)
        scores = np.append(self.scores, np.zeros(len(added)))
        return Popular(scores, np.append(self.rows, added))

    @property
    def counted(self) -> _Rows:
        """The leading rows, whose score is over 0."""
        return self.rows[: np.count_nonzero(self.scores > 0)]


class Popularity:
    """Counts interactions of catalogs in the background, each count for as long as it is asked for.

    Counts are shared by all requests, at most some seconds old, and longer where a count takes long
    (`refreshed.REST`).
    """

    def __init__(self, records: Records, *, least_s: float = LEAST_S) -> None:
        self._records = records
        self._counts: Refreshed[object, Popular] = Refreshed(least_s=least_s, capacity=MOST_COUNTS)

    async def of(self, active: Active, counting: Counting, *, timeout_s: float) -> Popular:
        """How popular the items are by certain interactions.

        Raises:
            Unavailable: The records do not answer, and it has not been counted before.
            DeadlineExceeded: The first count takes longer than `timeout_s`.
            LimitReached: Too many different counts are under way.
        """
        types = counting.event_types or active.catalog.event_types
        weights = {each.name: each.weight for each in types if each.weight > 0}
        # Rows are those of the release; a catalog of the same id may be another one.
        key = (active.release.id, counting.half_life, frozenset(weights.items()))

        def count() -> Popular:
            return self._count(active, weights, counting.half_life)

        counted = await self._counts.get(key, count, timeout_s=timeout_s)
        return counted.of_first(len(active.served.items))

    async def fallback(self, active: Active, *, timeout_s: float) -> Popular:
        """What is popular where nothing is known of the subject.

        Until the first count is there, and where there can be none, by users of the training data.
        """
        try:
            return await self.of(active, FALLBACK, timeout_s=min(PATIENCE_S, timeout_s / 2))
        except (Unavailable, DeadlineExceeded, LimitReached):
            served = active.served
            return Popular(
                served.popularity.astype(np.float64), served.by_popularity.astype(np.int32)
            )

    def _count(
        self, active: Active, weights: dict[str, float], half_life: timedelta | None
    ) -> Popular:
        counts = self._records.interactions.decayed_counts(active.catalog.id, weights, half_life)
        served = active.served
        rows = served.items.rows(counts["item_id"].combine_chunks())
        known = rows >= 0
        scores = np.zeros(len(served.items))
        scores[rows[known]] = counts["count"].to_numpy()[known]
        return Popular(scores, np.lexsort((-served.popularity, -scores)).astype(np.int32))


async def most_popular(
    search: Search,
    active: Active,
    popular: Popular,
    rows: _Rows,
    excluded: Sequence[frozenset[str]],
    count: int,
) -> list[list[Hit]]:
    """The first `count` of some rows that match, for each subject without its excluded ones.

    Args:
        search: Tells which items match.
        active: The release of the rows.
        popular: What the hits score.
        rows: What to choose from, best first.
        excluded: For each subject, the ids that must not be among its hits.
        count: How many hits; there are fewer only where no more match.
    """
    if not excluded:
        return []
    items = active.served.items
    left = await asyncio.to_thread(_without, rows, items, frozenset.intersection(*excluded))
    matching, looked, width = rows[:0], 0, _WIDER * count
    found: list[list[Hit]] = [[] for _ in excluded]
    is_narrow = False
    while len(left) and any(len(hits) < count for hits in found):
        if looked >= MOST_LOOKED and not is_narrow:
            left, is_narrow = left[await _matches(search, items, left)], True
            continue
        some, left = left[:width], left[width:]
        ids = items.take(some)
        among = await search.matching(ids)
        matching = np.concatenate([matching, some[[i in among for i in ids]]])
        found = _lists(items, popular, matching, excluded, count)
        looked, width = looked + len(some), min(width * _WIDER, MOST_AMONG)
    return found


async def _matches(search: Search, items: Vocabulary, rows: _Rows) -> NDArray[np.bool_]:
    """Which rows matched at the last look at everything, (rows,)."""
    matched = np.zeros(len(items), bool)
    matched[await search.all_matching()] = True
    return matched[rows]


def _without(rows: _Rows, items: Vocabulary, barred: frozenset[str]) -> _Rows:
    """The rows without those of some ids."""
    if not barred:
        return rows
    left = np.ones(len(items), bool)
    gone = items.rows(list(barred))
    left[gone[gone >= 0]] = False
    return rows[left[rows]]


def _lists(
    items: Vocabulary,
    popular: Popular,
    matching: _Rows,
    excluded: Sequence[frozenset[str]],
    count: int,
) -> list[list[Hit]]:
    rows = matching[: count + max(map(len, excluded))]
    found = Found(items.take(rows), popular.scores[rows].tolist())
    return [found.without(ids, count) for ids in excluded]
