"""What a live index finds of what exact scores would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from milvine.domain.hit import Found
from milvine.domain.model import LiveEvaluation
from milvine.models.base import Histories
from milvine.models.vocabulary import Vocabulary
from milvine.training.metrics import Tally
from milvine.training.recommender import Recommender

_SLACK = 1e-4
"""By how much an index may score otherwise, for it sums in another order."""


class LiveIndex(Protocol):
    """The items of a release."""

    @property
    def release_id(self) -> str:
        """The release."""

    def nearest(self, queries: NDArray[np.float32], limit: int) -> Sequence[Found]:
        """The items nearest to each query (users, dimension), best first."""


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """The lists of some users, rows of items with -1 where a list has ended."""

    seen: Histories
    """What the users have, which no list has."""
    known: Histories
    """What the model knows of that."""
    queries: NDArray[np.float32]
    """(users, dimension): their vectors."""
    model: NDArray[np.int64]
    """(users, depth): as the model ranks them, or popular items for users without a history."""
    popular: NDArray[np.int64]
    """(users, depth): what most users have."""
    retrieved: NDArray[np.float32]
    """(users, n): the best scores by inner product, exactly; -inf past the last item."""


class LiveMeasure:
    """Sums over users of what a live index finds."""

    def __init__(
        self, index: LiveIndex, items: Vocabulary, recommender: Recommender, tally: Tally
    ) -> None:
        self._index = index
        self._items = items
        self._recommender = recommender
        self._tally = tally
        self._right = self._wanted = 0

    def add(self, lists: Lists, held: Histories) -> None:
        """Ask for the lists of some users, and count what they have of what was held out."""
        count = lists.retrieved.shape[1]
        longest = int(lists.seen.lengths.max(initial=0))
        found = self._index.nearest(lists.queries, count + longest)
        rows = np.full(lists.retrieved.shape, -1, np.int64)
        scores = np.full(lists.retrieved.shape, -np.inf, np.float32)
        for user in np.flatnonzero(lists.known.is_known).tolist():
            own, own_scores = self._unseen(found[user], lists.seen, user, count)
            rows[user, : len(own)], scores[user, : len(own)] = own, own_scores
            self._compare(own_scores, lists.retrieved[user])
        ranked = self._recommender.ranked(lists.known, rows, scores)[:, : lists.model.shape[1]]
        self._tally.add(np.where(lists.known.is_known[:, None], ranked, lists.model), held)

    def _compare(self, scores: NDArray[np.float32], exact: NDArray[np.float32]) -> None:
        """Count how many of the best the index found for a user."""
        wanted = exact[exact > -np.inf]
        if len(wanted):
            least = float(wanted[-1])
            # Items that the model places by what they say may score above its own.
            right = int((scores >= least - _SLACK * max(1.0, abs(least))).sum())
            self._right += min(right, len(wanted))
            self._wanted += len(wanted)

    def _unseen(
        self, hits: Found, seen: Histories, user: int, depth: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The rows and scores of a user's hits that the user does not have."""
        rows = self._items.rows(hits.ids)
        had = seen.items[seen.offsets[user] : seen.offsets[user + 1]]
        kept = np.flatnonzero((rows >= 0) & ~np.isin(rows, had))[:depth]
        return rows[kept], np.asarray(hits.scores, np.float32)[kept]

    def result(self) -> LiveEvaluation:
        """The means."""
        recall = self._right / self._wanted if self._wanted else 1.0
        return LiveEvaluation(self._index.release_id, recall, self._tally.metrics())
