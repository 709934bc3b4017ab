"""Measuring a model on interactions that it has not seen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from milvine.domain.errors import Cancelled
from milvine.domain.model import Evaluation, Holdout, HoldoutMethod, RankingMetrics
from milvine.models.base import Dataset, Encoder, Histories, IsCancelled
from milvine.training.dataset import popularity

_SCORES = 2**24
"""How many scores are held at once: 64 MB."""


def split(dataset: Dataset, holdout: Holdout) -> tuple[Dataset, Histories]:
    """Part a data set into one to train on and the histories that are held out of it.

    Both have all users and items. Each user keeps one item at least, and gives one, or
    `holdout.fraction` of the items rounded, one at least; a user with a single item gives none.
    Ties in time are decided by the seed.
    """
    histories = dataset.histories
    if holdout.method is HoldoutMethod.NONE:
        return dataset, histories.keep(np.zeros(len(histories.items), bool))
    draws = np.random.default_rng(abs(holdout.seed)).random(len(histories.items))
    latest = holdout.method is HoldoutMethod.LATEST
    keys = (draws, histories.times, histories.users) if latest else (draws, histories.users)
    order = np.lexsort(keys)
    # `order` goes user by user, so the places from the end count what a user gives.
    from_end = np.repeat(histories.offsets[1:], histories.lengths) - np.arange(len(order))
    held = np.empty(len(order), bool)
    held[order] = from_end <= np.repeat(_gives(histories.lengths, holdout), histories.lengths)
    return replace(dataset, histories=histories.keep(~held)), histories.keep(held)


def _gives(lengths: NDArray[np.int64], holdout: Holdout) -> NDArray[np.int64]:
    wanted = np.ones_like(lengths)
    if holdout.fraction is not None:
        wanted = np.maximum(np.rint(lengths * holdout.fraction), 1).astype(np.int64)
    return np.clip(wanted, 0, np.maximum(lengths - 1, 0))


def evaluate(  # noqa: PLR0913 - what is measured, and on what
    train: Dataset,
    held_out: Histories,
    encoder: Encoder,
    item_vectors: NDArray[np.float32],
    *,
    holdout: Holdout,
    device: str = "cpu",
    cancelled: IsCancelled = lambda: False,
) -> Evaluation | None:
    """Rank all items but a user's own for every user with something held out.

    Returns:
        The means of the model and of the items that most users have; None where nothing is held
        out.
    """
    vectors = torch.from_numpy(np.require(item_vectors, requirements="W")).to(device)
    places = torch.from_numpy(_places(popularity(train))).to(device)
    tallies = [_Tally(holdout.cutoffs, len(vectors)) for _ in range(2)]
    for users in _batches(np.flatnonzero(held_out.lengths), len(vectors)):
        if cancelled():
            raise Cancelled
        seen, held = train.histories.take(users), held_out.take(users)
        encoded = torch.from_numpy(encoder.encode(seen)).to(device)
        for tally, scores in zip(
            tallies, (encoded @ vectors.mT, places.repeat(len(users), 1)), strict=True
        ):
            tally.add(_top(scores, seen, max(holdout.cutoffs)), held)
    if not tallies[0].user_count:
        return None
    model, popular = (tally.metrics() for tally in tallies)
    return Evaluation(holdout, tallies[0].user_count, model, popular)


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
    tally = _Tally(tuple(cutoffs), item_count)
    tally.add(ranked, _ragged(held))
    return tally.metrics()


class _Tally:
    """Sums of metrics over users."""

    def __init__(self, cutoffs: tuple[int, ...], item_count: int) -> None:
        self.user_count = 0
        self._cutoffs = cutoffs
        self._item_count = item_count
        self._sums = np.zeros((len(cutoffs), 4))
        self._listed: list[NDArray[np.int64]] = [np.zeros(0, np.int64) for _ in cutoffs]

    def add(self, ranked: NDArray[np.int64], held: Histories) -> None:
        """Count lists (users, depth) of item rows, -1 where a list has ended."""
        self.user_count += len(ranked)
        hits = _hits(ranked, held)
        for i, cutoff in enumerate(self._cutoffs):
            self._sums[i] += _user_metrics(hits[:, :cutoff], held.lengths, cutoff).sum(axis=1)
            listed = np.unique(ranked[:, :cutoff])
            self._listed[i] = np.union1d(self._listed[i], listed[listed >= 0])

    def metrics(self) -> tuple[RankingMetrics, ...]:
        """The means, a message a cutoff."""
        return tuple(
            _metrics(cutoff, sums / self.user_count, len(listed) / self._item_count)
            for cutoff, sums, listed in zip(self._cutoffs, self._sums, self._listed, strict=True)
        )


def _metrics(cutoff: int, means: NDArray[np.float64], coverage: float) -> RankingMetrics:
    recall, ndcg, mrr, hit_rate = means.tolist()
    return RankingMetrics(cutoff, recall, ndcg, mrr, hit_rate, coverage)


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


def _top(scores: Tensor, seen: Histories, depth: int) -> NDArray[np.int64]:
    """The best items (users, depth) of scores (users, items) but those seen; -1 past the last."""
    users, items = (torch.from_numpy(a).to(scores.device) for a in (seen.users, seen.items))
    scores[users, items.long()] = -torch.inf
    best = scores.topk(min(depth, scores.shape[1]), dim=1)
    rows = best.indices.masked_fill(best.values == -torch.inf, -1)
    return rows.cpu().numpy()


def _places(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores that rank by count, the first row first among equals."""
    places = np.empty(len(counts), np.float32)
    places[np.argsort(-counts, kind="stable")] = -np.arange(len(counts), dtype=np.float32)
    return places


def _batches(users: NDArray[np.int64], item_count: int) -> Iterator[NDArray[np.int64]]:
    size = max(1, min(1_024, _SCORES // item_count))
    for start in range(0, len(users), size):
        yield users[start : start + size]


def _ragged(rows: Sequence[Sequence[int]]) -> Histories:
    offsets = np.cumsum([0, *map(len, rows)])
    items = np.array([item for row in rows for item in row], np.int32)
    return Histories(
        offsets, items, np.ones(len(items), np.float32), np.zeros(len(items), np.int64)
    )
