"""Exact scoring: the best of many items by inner product, in numpy.

Like searches of many requests are one matrix product. Ties go to the smaller row, so that the same
question has the same answer each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from milvine.models.serving import ServingModel
from milvine.models.vocabulary import Vocabulary
from milvine.retrieval.batches import Batches
from milvine.vectors.layout import directions

MOST_GATHERED = 8 << 20
"""Vectors of at most so many bytes lie together in a pool of their own: scoring them takes half
of the time of picking them out of all vectors. More would leave no room for other pools."""
MOST_SCORES = 1 << 23
"""How many scores are held at once: 32 MB."""
QUICK = 4_000_000
"""Up to so many multiplications, 0.5 ms, are done at once; more go to a thread."""
SCORINGS = 2
"""Products under way: numpy takes a core for each."""
MOST_QUERIES = 128
"""A product takes no further request once it has so many queries."""
WHOLE = 4
"""How many releases' items are kept as pools, by score and by direction each."""
_LOOKED_UP = 4_096
"""Ids whose rows are found at a time: those of 10,000 ids among 200,000 took 8 ms so, and 40 ms
together, for a vocabulary hashes itself for long lists."""
_BLOCK = 16_384
"""Rows whose vectors are picked at a time, for they stay in the processor's cache."""
FIRST_EXCLUDED = 1_000
"""By how much the first look is wider than the hits asked for, at most: most of a long list is
not among the best, and to find the rows of 100,000 ids takes 30 ms."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Items to choose the best of. Searches of the same pool are done together."""

    items: Vocabulary
    rows: NDArray[np.int32]
    """(n,), ascending: which items."""
    vectors: NDArray[np.float32]
    """(all items, dimension)"""
    gathered: NDArray[np.float32] | None
    """(n, dimension): the vectors of `rows`; None where they are many."""

    @classmethod
    def of(cls, items: Vocabulary, rows: NDArray[np.int32], vectors: NDArray[np.float32]) -> Pool:
        """A pool of some rows, ascending."""
        if len(rows) == len(vectors):
            return cls(items, rows, vectors, vectors)
        is_small = len(rows) * vectors[:1].nbytes <= MOST_GATHERED
        return cls(items, rows, vectors, vectors[rows] if is_small else None)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """What it takes beyond the vectors of all items."""
        if self.gathered is None or self.gathered is self.vectors:
            return self.rows.nbytes
        return self.rows.nbytes + self.gathered.nbytes

    def places_without(self, excluded: Collection[str]) -> NDArray[np.int64]:
        """The places, ascending, of the rows that no excluded id has."""
        is_allowed = np.ones(len(self.items) + 1, bool)
        ids = list(excluded)
        for at in range(0, len(ids), _LOOKED_UP):
            rows = self.items.rows(ids[at : at + _LOOKED_UP])
            is_allowed[rows] = False  # unknown ids have the row -1
        return np.flatnonzero(is_allowed[self.rows])

    def scores(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scores of all rows, (q, dimension) to (q, n)."""
        if self.gathered is not None:
            # The other way round takes up to ten times as long for 2 to 16 queries.
            return np.ascontiguousarray((self.gathered @ queries.T).T)
        scores = np.empty((len(queries), len(self)), np.float32)
        for at in range(0, len(self), _BLOCK):
            block = self.vectors[self.rows[at : at + _BLOCK]]
            np.matmul(queries, block.T, out=scores[:, at : at + _BLOCK])
        return scores


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A search of a pool."""

    query: NDArray[np.float32]
    """(dimension,)"""
    excluded: frozenset[str]
    """Ids that must not be among the best."""
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """The best of a pool for a question, best first."""

    ids: list[str]
    scores: list[float]
    is_all: bool
    """Whether the pool has no more."""


class Scorer:
    """Finds the best of pools, for many callers at once."""

    def __init__(self) -> None:
        self._batches: Batches[Pool, Question, Best] = Batches(
            _answer, slots=SCORINGS, most=MOST_QUERIES
        )
        self._by_score = lru_cache(maxsize=WHOLE)(_all_by_score)
        self._by_direction = lru_cache(maxsize=WHOLE)(_all_by_direction)

    async def best(self, lane: str, pool: Pool, questions: Sequence[Question]) -> Sequence[Best]:
        """The best of a pool for each question."""
        return await self._batches.answers(lane, pool, questions)

    async def all_by_score(self, served: ServingModel) -> Pool:
        """All items, whose inner products are the scores of the model."""
        return self._by_score(served)

    async def all_by_direction(self, served: ServingModel) -> Pool:
        """All items, whose inner products are cosines."""
        return await asyncio.to_thread(self._by_direction, served)


def top(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The places of the greatest of (n,) scores, greatest first, ties in their order."""
    places = np.arange(len(scores))
    if 0 < count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    order: NDArray[np.int64] = places[np.argsort(-scores[places], kind="stable")][:count]
    return order


async def _answer(pool: Pool, questions: Sequence[Question]) -> list[Best]:
    if pool.vectors.shape[1] * len(pool) * len(questions) <= QUICK:
        return _score(pool, questions)
    return await asyncio.to_thread(_score, pool, questions)


def _score(pool: Pool, questions: Sequence[Question]) -> list[Best]:
    found: list[Best] = []
    size = max(1, MOST_SCORES // max(1, len(pool)))
    for at in range(0, len(questions), size):
        some = questions[at : at + size]
        scores = pool.scores(np.stack([one.query for one in some], dtype=np.float32))
        found += [_best(pool, *one) for one in zip(scores, some, strict=True)]
    return found


def _best(pool: Pool, scores: NDArray[np.float32], question: Question) -> Best:
    """The best that are not excluded: among the first of all, else by finding the excluded rows."""
    excluded, count = question.excluded, question.count
    width = count + min(len(excluded), FIRST_EXCLUDED)
    places = top(scores, width)
    ids, kept = kept_of(pool, places, excluded)
    is_end = width >= len(scores)
    if is_end or len(kept) >= count:
        best = kept[:count]
        is_all = is_end and len(best) == len(kept)
        return Best([ids[at] for at in best], scores[places[best]].tolist(), is_all)
    allowed = pool.places_without(excluded)
    places = allowed[top(scores[allowed], count)]
    ids = pool.items.take(pool.rows[places])
    return Best(ids, scores[places].tolist(), len(allowed) <= count)


def kept_of(
    pool: Pool, places: NDArray[np.int64], excluded: frozenset[str]
) -> tuple[list[str], list[int]]:
    """The ids at places of a pool, and which of them are not excluded."""
    ids = pool.items.take(pool.rows[places])
    return ids, [at for at, id_ in enumerate(ids) if id_ not in excluded]


def _all_by_score(served: ServingModel) -> Pool:
    return Pool.of(served.items, _every(served), served.item_vectors)


def _all_by_direction(served: ServingModel) -> Pool:
    tastes = directions(served.item_vectors, served.taste_dimension)
    return Pool.of(served.items, _every(served), tastes)


def _every(served: ServingModel) -> NDArray[np.int32]:
    return np.arange(len(served.items), dtype=np.int32)
