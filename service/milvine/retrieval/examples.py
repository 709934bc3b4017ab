"""A taste from examples: what fits it, less what doesn't.

Rocchio 1971, "Relevance feedback in information retrieval", in the space of users. There, a query
moves to the mean of the documents that fit, and away from the mean of those that don't. Here the
vector of an example is that of a person who had this one item and liked it, by the model's own
encoder, so that every family takes examples. With positive weights p of sum P and negative weights
n of sum N, the vector of the taste is

    sum of p e / P  -  sum of n e / max(P, N)

so that what doesn't fit counts by its share of what fits, and never more than that as a whole. Only
tastes are taken off. Biases are those of what fits, and where nothing does, those of a person of
whom nothing is known, which is then where the taste begins.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.domain.query import ExamplesSubject
from milvine.models.base import Feedback, Histories
from milvine.models.serving import ServingModel

Numbers: TypeAlias = NDArray[np.float64]

_TINY = np.finfo(np.float64).tiny
_NOBODY = Histories(
    np.zeros(2, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int64)
)
"""A single person without a history."""


@dataclass(frozen=True, slots=True, eq=False)
class Taste:
    """Examples that a model knows."""

    items: tuple[str, ...]
    weights: Numbers
    """(items,): over 0 for what fits, under 0 for what doesn't."""
    vectors: Numbers
    """(items, dimension): of people who had and liked one of the items each."""
    nobody: Numbers
    """(dimension,): of a person of whom nothing is known."""
    taste_dimension: int

    def vector(self) -> NDArray[np.float32]:
        """The vector of the taste, (dimension,)."""
        vector: NDArray[np.float32] = self._mixed(self.weights[None, :])[0].astype(np.float32)
        return vector

    def without_each(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of the taste without the example at each of some places, (n, dimension)."""
        weights = np.tile(self.weights, (len(places), 1))
        weights[np.arange(len(places)), places] = 0.0
        return self._mixed(weights).astype(np.float32)

    def _mixed(self, weights: Numbers) -> Numbers:
        """The vectors of tastes with weights (n, items), (n, dimension)."""
        fits, doesnt = np.maximum(weights, 0.0), np.maximum(-weights, 0.0)
        fit_total = fits.sum(axis=1, keepdims=True)
        total = np.maximum(fit_total, doesnt.sum(axis=1, keepdims=True))
        liked = fits @ self.vectors / np.maximum(fit_total, _TINY)
        disliked = doesnt @ self.vectors / np.maximum(total, _TINY)
        mixed = np.where(fit_total > 0, liked, self.nobody)
        mixed[:, : self.taste_dimension] -= disliked[:, : self.taste_dimension]
        return mixed


def taste_of(served: ServingModel, subject: ExamplesSubject) -> Taste | None:
    """The taste that examples say; None where the model knows none of them."""
    given = {**subject.positives, **{item: -w for item, w in subject.negatives.items()}}
    ids = list(given)
    rows = served.items.rows(ids)
    known = np.flatnonzero((rows >= 0) & (rows < served.items.fixed))
    if not len(known):
        return None
    items = tuple(ids[place] for place in known.tolist())
    weights = np.array([given[item] for item in items])
    nobody = served.encoder.encode(_NOBODY)[0]
    alone = _alone(rows[known], _strengths(served, rows[known], nobody))
    return Taste(
        items,
        weights / np.abs(weights).max(),
        served.encoder.encode(alone).astype(np.float64),
        nobody.astype(np.float64),
        served.taste_dimension,
    )


def seen_in(subject: ExamplesSubject) -> tuple[str, ...]:
    """The items that were named."""
    return (*subject.positives, *subject.negatives)


def _strengths(
    served: ServingModel, rows: NDArray[np.int32], nobody: NDArray[np.float32]
) -> Numbers:
    """How much someone had to do with each item who liked it, (rows,).

    As a rating: what the model expects of anyone, and on top what it expects of someone whose taste
    is that of an item, on average: the mean square of the items' tastes, which by the penalties of
    a factorisation are about as long as those of people. So a rating keeps to the catalog's scale,
    and an item that everybody likes says something, too. (On goodbooks, with five books that a
    reader gave 5 stars, it finds others as well as 5 stars do, and better than half or ten times
    as much on top.)
    """
    if served.feedback is not Feedback.EXPLICIT:
        return np.ones(len(rows))
    tastes = served.item_vectors[:, : served.taste_dimension]
    on_top = np.einsum("nd,nd->n", tastes, tastes).mean(dtype=np.float64)
    strengths: Numbers = (served.item_vectors[rows] @ nobody).astype(np.float64) + on_top
    return strengths


def _alone(rows: NDArray[np.int32], strengths: Numbers) -> Histories:
    """People who had one item each, just now."""
    return Histories(
        np.arange(len(rows) + 1),
        rows,
        strengths.astype(np.float32),
        np.full(len(rows), time.time_ns() // 1_000),
    )
