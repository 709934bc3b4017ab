"""Metrics of ranked lists."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from milvine.domain.model import RankingMetrics
from milvine.models.base import Histories


def ranking_metrics(
    lists: Sequence[Sequence[str]],
    held_out: Sequence[Collection[str]],
    *,
    cutoffs: Sequence[int],
    item_count: int,
) -> tuple[RankingMetrics, ...]:
    """The metrics of lists of item ids, best first, one a user, wherever they came from.

    Args:
        lists: What was recommended, without repeated ids; a list may be shorter than a cutoff.
        held_out: What each user had, at least one id each.
        cutoffs: A result each.
        item_count: How many items there are to recommend, for the coverage.
    """
    rows: dict[str, int] = {}
    depth = max(cutoffs)
    ranked = np.full((len(lists), depth), -1, np.int64)
    for user, ids in enumerate(lists):
        known = [rows.setdefault(i, len(rows)) for i in ids[:depth]]
        ranked[user, : len(known)] = known
    held = [[rows.setdefault(i, len(rows)) for i in set(ids)] for ids in held_out]
    tally = Tally(tuple(cutoffs), item_count)
    tally.add(ranked, _ragged(held))
    return tally.metrics()


def self_information(counts: NDArray[np.int64], user_count: int) -> NDArray[np.float64]:
    """The self-information of items in bits, (items,): -log2 of the share of users who have each.

    Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender systems",
    section "Recommendation novelty". An item that nobody has counts as if one had.

    Args:
        counts: (items,) how many users have each item.
        user_count: How many users there are, 1 or more.
    """
    bits: NDArray[np.float64] = np.log2(user_count) - np.log2(np.maximum(counts, 1))
    return bits


class Tally:
    """Sums of metrics over users."""

    def __init__(
        self,
        cutoffs: tuple[int, ...],
        item_count: int,
        information: NDArray[np.float64] | None = None,
    ) -> None:
        """Begin at zero.

        Args:
            cutoffs: A result each.
            item_count: How many items there are to recommend.
            information: (items,) what `self_information` gives; None: novelty is not measured.
        """
        self.user_count = 0
        self.held_out_count = 0
        self._cutoffs = cutoffs
        self._item_count = item_count
        self._information = information
        self._sums = np.zeros((len(cutoffs), 4))
        self._bits = np.zeros(len(cutoffs))
        self._entries = np.zeros(len(cutoffs), np.int64)
        self._listed: list[NDArray[np.int64]] = [np.zeros(0, np.int64) for _ in cutoffs]

    def add(self, ranked: NDArray[np.int64], held: Histories) -> None:
        """Count lists (users, depth) of item rows, -1 where a list has ended.

        Each user of `held` has an item at least.
        """
        self.user_count += len(ranked)
        self.held_out_count += len(held.items)
        hits = _hits(ranked, held)
        for i, cutoff in enumerate(self._cutoffs):
            self._sums[i] += _user_metrics(hits[:, :cutoff], held.lengths, cutoff).sum(axis=1)
            self._count_listed(i, ranked[:, :cutoff])

    def _count_listed(self, i: int, ranked: NDArray[np.int64]) -> None:
        entries = ranked[ranked >= 0]
        self._listed[i] = np.union1d(self._listed[i], entries)
        self._entries[i] += len(entries)
        if self._information is not None:
            self._bits[i] += self._information[entries].sum()

    def metrics(self) -> tuple[RankingMetrics, ...]:
        """The means, a result a cutoff."""
        return tuple(self._metrics(i, cutoff) for i, cutoff in enumerate(self._cutoffs))

    def _metrics(self, i: int, cutoff: int) -> RankingMetrics:
        recall, ndcg, mrr, hit_rate = (self._sums[i] / self.user_count).tolist()
        coverage = len(self._listed[i]) / self._item_count
        novelty = None
        if self._information is not None:
            novelty = float(self._bits[i] / max(1, self._entries[i]))
        return RankingMetrics(cutoff, recall, ndcg, mrr, hit_rate, coverage, novelty)


def _hits(ranked: NDArray[np.int64], held: Histories) -> NDArray[np.bool_]:
    """(users, depth): whether each place of a list has an item that was held out."""
    stride = int(max(ranked.max(initial=0), held.items.max(initial=0))) + 1
    wanted = held.users * stride + held.items
    keys = np.arange(len(ranked))[:, None] * stride + ranked
    return (ranked >= 0) & np.isin(keys, wanted)


def _user_metrics(
    hits: NDArray[np.bool_], held_count: NDArray[np.int64], cutoff: int
) -> NDArray[np.float64]:
    """(4, users): recall, NDCG, MRR and hit rate."""
    discounts = 1.0 / np.log2(np.arange(2, cutoff + 2))
    ideal = np.cumsum(discounts)[np.minimum(held_count, cutoff) - 1]
    found = hits.any(axis=1)
    first = hits.argmax(axis=1) + 1 if hits.size else np.ones(len(hits))
    return np.stack(
        [
            hits.sum(axis=1) / held_count,
            hits @ discounts[: hits.shape[1]] / ideal,
            found / first,
            found.astype(np.float64),
        ]
    )


def _ragged(rows: Sequence[Sequence[int]]) -> Histories:
    offsets = np.cumsum([0, *map(len, rows)])
    items = np.array([item for row in rows for item in row], np.int32)
    return Histories(
        offsets, items, np.ones(len(items), np.float32), np.zeros(len(items), np.int64)
    )
