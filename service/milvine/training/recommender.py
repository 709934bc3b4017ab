"""What ranks items for users, as the service does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from milvine.models.base import (
    MOST_RERANKED,
    Encoder,
    Family,
    Fitted,
    Histories,
    Scorer,
    scorer_of,
    whole_gains,
)
from milvine.models.serving import ServingModel

C = TypeVar("C")


@dataclass(frozen=True, slots=True, eq=False)
class Recommender:
    """A model as far as it ranks items: by inner products, and the best of these by a scorer."""

    encoder: Encoder
    item_vectors: NDArray[np.float32]
    """(items, dimension)"""
    scorer: Scorer | None = None
    """Ranks the best MOST_RERANKED items anew; None where scores are inner products."""

    @classmethod
    def of_fit(cls, family: Family[C], config: C, fitted: Fitted) -> Recommender:
        """What a fit has learned."""
        scorer = scorer_of(family, config, fitted.tensors)
        return cls(family.encoder(config, fitted.tensors), fitted.item_vectors, scorer)

    @classmethod
    def of_served(cls, served: ServingModel) -> Recommender:
        """A stored model."""
        return cls(served.encoder, served.item_vectors, served.scorer)

    def retrieved(self, depth: int) -> int:
        """How many items have to be retrieved for lists of a depth."""
        return max(depth, MOST_RERANKED) if self.scorer else depth

    def ranked(
        self, histories: Histories, rows: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Retrieved items in the order of the whole model's scores.

        Args:
            histories: Of the users for whom they were retrieved.
            rows: (users, n): rows of items by inner product, best first, -1 past the last.
            scores: (users, n): the inner products.
        """
        if self.scorer is None:
            return rows
        head = rows[:, :MOST_RERANKED]
        is_item = head >= 0
        readers = self.scorer.read(histories)
        gains = whole_gains(self.scorer, readers, np.where(is_item, head, 0), is_item)
        totals = np.where(is_item, scores[:, :MOST_RERANKED] + gains, -np.inf)
        best = np.argsort(-totals, axis=1, kind="stable")
        head = np.take_along_axis(head, best, axis=1)
        return np.concatenate([head, rows[:, MOST_RERANKED:]], axis=1)
