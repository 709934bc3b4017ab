"""Measuring a model on interactions that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from milvine.domain.errors import Cancelled
from milvine.domain.model import Evaluation, Holdout, Segment, SegmentEvaluation
from milvine.models.base import Dataset, Histories, IsCancelled
from milvine.training.dataset import popularity
from milvine.training.holdout import held_out_fingerprint
from milvine.training.live import Lists, LiveIndex, LiveMeasure
from milvine.training.metrics import Tally, self_information
from milvine.training.recommender import Recommender

COLD = 5
"""Users with at most so many items, and items with at most so many users, are cold."""
HEAD_SHARE = 0.2
"""The share of the items that are the head."""
_USERS, _FEW_USERS = 1_024, 128
"""How many users are ranked for at once; an index, a scorer and texts take longer."""
_SCORES = 2**24
"""How many scores are held at once: 64 MB."""


def evaluate(  # noqa: PLR0913 - what is measured, and on what
    train: Dataset,
    held_out: Histories,
    recommender: Recommender,
    *,
    holdout: Holdout,
    device: str = "cpu",
    cancelled: IsCancelled = lambda: False,
    live: LiveIndex | None = None,
) -> Evaluation | None:
    """Rank all items but a user's own for every user with something held out.

    A user of whom nothing is known gets popular items, as from the service.

    Args:
        train: What was learned from.
        held_out: What is to be found, of the same users and items.
        recommender: The model: reads histories of `train` and ranks its leading items; others are
            never found.
        holdout: How the two were parted, and the lengths of lists.
        device: The torch device that ranks.
        cancelled: Asked for each batch of users.
        live: An index of the item vectors, asked for the same lists.

    Returns:
        The means of the model and of the items that most users have, as a whole and by segment;
        None where nothing is held out.
    """
    if not len(held_out.items):
        return None
    counts = popularity(train)
    ranking = _Ranking(
        recommender, _on(recommender.item_vectors, device), _on(_places(counts), device)
    )
    begin = partial(Tally, holdout.cutoffs, len(counts), self_information(counts, len(train.users)))
    whole, *segments = (
        _Measure(part, begin(), begin())
        for part in (held_out, *_segments(train.histories, held_out, counts).values())
    )
    live_measure = LiveMeasure(live, train.items, recommender, begin()) if live else None
    features = train.histories.features
    is_slow = live or recommender.scorer or (features is not None and features.texts is not None)
    most = _FEW_USERS if is_slow else _USERS
    for users in _batches(np.flatnonzero(held_out.lengths), len(counts), most=most):
        if cancelled():
            raise Cancelled
        lists = ranking.lists(train.histories.take(users), max(holdout.cutoffs))
        for measure in (whole, *segments):
            measure.add(users, lists.model, lists.popular)
        if live_measure:
            live_measure.add(lists, held_out.take(users))
    return Evaluation(
        holdout,
        whole.model.user_count,
        whole.model.metrics(),
        whole.popularity.metrics(),
        segments=tuple(
            measure.result(segment)
            for segment, measure in zip(Segment, segments, strict=True)
            if measure.model.user_count
        ),
        held_out_count=len(held_out.items),
        item_count=len(counts),
        held_out_fingerprint=held_out_fingerprint(train, held_out),
        live=live_measure.result() if live_measure else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Ranking:
    """What ranks all items for a user."""

    recommender: Recommender
    vectors: Tensor
    """(items, dimension)"""
    places: Tensor
    """(items,): scores that rank by popularity."""

    def lists(self, seen: Histories, depth: int) -> Lists:
        """The lists of the users of some histories."""
        known = seen.keep(seen.items < len(self.vectors))
        vectors = self.recommender.encoder.encode(known)
        encoded = torch.from_numpy(vectors).to(self.vectors.device)
        retrieved = _top(encoded @ self.vectors.mT, known, self.recommender.retrieved(depth))
        model = self.recommender.ranked(known, *retrieved)[:, :depth]
        popular, _ = _top(self.places.repeat(len(seen), 1), seen, depth)
        nobody = ~known.is_known
        model[nobody] = -1
        model[nobody, : popular.shape[1]] = popular[nobody, : model.shape[1]]
        return Lists(seen, known, vectors, model, popular, retrieved[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Measure:
    """What was found of a part of what is held out."""

    held_out: Histories
    model: Tally
    popularity: Tally

    def add(
        self, users: NDArray[np.int64], model: NDArray[np.int64], popular: NDArray[np.int64]
    ) -> None:
        """Count the lists (users, depth) of those users who have something of the part."""
        held = self.held_out.take(users)
        some = np.flatnonzero(held.lengths)
        if len(some):
            self.model.add(model[some], held.take(some))
            self.popularity.add(popular[some], held.take(some))

    def result(self, segment: Segment) -> SegmentEvaluation:
        """The means."""
        return SegmentEvaluation(
            segment,
            self.model.user_count,
            self.model.held_out_count,
            self.model.metrics(),
            self.popularity.metrics(),
        )


def _segments(
    train: Histories, held_out: Histories, counts: NDArray[np.int64]
) -> Mapping[Segment, Histories]:
    """What is held out by segment, in the order of `Segment`."""
    head = np.zeros(len(counts), bool)
    head[np.argsort(-counts, kind="stable")[: int(np.ceil(HEAD_SHARE * len(counts)))]] = True
    masks = {
        Segment.COLD_USERS: train.lengths[held_out.users] <= COLD,
        Segment.COLD_ITEMS: counts[held_out.items] <= COLD,
        Segment.HEAD_ITEMS: head[held_out.items],
        Segment.TAIL_ITEMS: ~head[held_out.items],
    }
    return {segment: held_out.keep(masks[segment]) for segment in Segment}


def _top(
    scores: Tensor, seen: Histories, depth: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best items (users, depth) but those seen and their scores; -1 and -inf past the last.

    Args:
        scores: (users, items), which are changed.
        seen: The items that each user has.
        depth: How many are listed at most.
    """
    users, items = (torch.from_numpy(a).to(scores.device) for a in (seen.users, seen.items))
    scores[users, items.long()] = -torch.inf
    best = scores.topk(min(depth, scores.shape[1]), dim=1)
    rows = best.indices.masked_fill(best.values == -torch.inf, -1)
    return rows.cpu().numpy(), best.values.cpu().numpy()


def _places(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores that rank by count, the first row first among equals."""
    places = np.empty(len(counts), np.float32)
    places[np.argsort(-counts, kind="stable")] = -np.arange(len(counts), dtype=np.float32)
    return places


def _on(array: NDArray[np.float32], device: str) -> Tensor:
    return torch.from_numpy(np.require(array, requirements="W")).to(device)


def _batches(
    users: NDArray[np.int64], item_count: int, *, most: int
) -> Iterator[NDArray[np.int64]]:
    size = max(1, min(most, _SCORES // item_count))
    for start in range(0, len(users), size):
        yield users[start : start + size]
