"""Exact scoring of the few items that can be among the best.

An inner product is at most the product of the lengths. So once enough good items are found among
the longest vectors, those that are too short to score as much need not be looked at (Teflioudi,
Gemulla and Mykytiuk 2015, LEMP, section 3). Vectors of popular items are long: of 50,000 items
3,000 were left to score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from milvine.retrieval.scoring import FIRST_EXCLUDED, QUICK, Best, Pool, Question, kept_of, top

MOST_BYTES = 64 << 20
"""Vectors of more bytes have no copy in another order."""
_FIRST = 4_096
"""So many of the longest are scored in any case."""
_ROUNDING = 1e-5
"""By what share a score may come out greater than the product of the lengths."""


@dataclass(frozen=True, slots=True, eq=False)
class LongestFirst:
    """The items of a pool, those with the longest vectors first."""

    pool: Pool
    places: NDArray[np.int64]
    """(n,) of the pool"""
    lengths: NDArray[np.float32]
    """(n,), falling"""
    vectors: NDArray[np.float32]
    """(n, dimension)"""

    @classmethod
    def of(cls, pool: Pool) -> Self | None:
        """The items of a pool in the other order; None where they are too many."""
        if len(pool) * pool.vectors[:1].nbytes > MOST_BYTES:
            return None
        lengths = np.linalg.norm(pool.vectors, axis=1)[pool.rows]
        places = np.argsort(-lengths, kind="stable")
        return cls(pool, places, lengths[places], pool.vectors[pool.rows[places]])

    @property
    def nbytes(self) -> int:
        """What it takes, without the vectors of the model."""
        own = (self.pool.rows, self.places, self.lengths, self.vectors)
        return sum(array.nbytes for array in own)

    def best(self, question: Question, *, most: int = QUICK) -> Best | None:
        """The best for a question; None where that takes more than so many multiplications."""
        size = self.vectors.shape[1]
        if min(len(self.places), _FIRST) * size > most or not question.count:
            return None
        longest = self.vectors[:_FIRST] @ question.query
        least = self._least(longest, question)
        if least is None:
            return None
        count = max(self._count_within_reach(least, question.query), len(longest))
        if count * size > most:
            return None
        others = self.vectors[len(longest) : count] @ question.query
        scores = np.concatenate([longest, others])
        above = np.flatnonzero(scores >= least)
        scores, places = scores[above], self.places[above]
        order = np.lexsort((places, -scores))
        ids, kept = kept_of(self.pool, places[order], question.excluded)
        best = kept[: question.count]
        is_all = len(above) == len(self.places) and len(kept) == len(best)
        return Best([ids[at] for at in best], scores[order[best]].tolist(), is_all)

    def _least(self, scores: NDArray[np.float32], question: Question) -> float | None:
        """What as many as are wanted score among the longest; None where fewer count."""
        width = question.count + min(len(question.excluded), FIRST_EXCLUDED)
        order = top(scores, width)
        _, kept = kept_of(self.pool, self.places[order], question.excluded)
        if len(kept) < question.count:
            return None
        return float(scores[order[kept[question.count - 1]]])

    def _count_within_reach(self, least: float, query: NDArray[np.float32]) -> int:
        """How many vectors are long enough for a score."""
        if least <= 0:
            return len(self.places)
        reach = least / float(np.linalg.norm(query)) * (1 - _ROUNDING)
        return int(np.searchsorted(-self.lengths, -reach, side="right"))
