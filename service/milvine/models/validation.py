"""What a fit holds out for itself, to know when to stop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from milvine.models.base import Encoder, Histories

_USERS = 2_000
"""Users who are asked at most: more would cost training data, and tell little more."""
_SHARE = 0.2
"""The share of their items that they give."""
_SHORTEST = 5
"""Users with fewer items give none."""
_DEPTH = 20


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Users whose lists are measured after each pass."""

    seen: Histories
    """What they keep, which is trained on."""
    held: Histories
    """What they gave."""

    def ndcg(self, encoder: Encoder, item_vectors: NDArray[np.float32]) -> float:
        """The mean NDCG@20 over the users, all items ranked but those that they keep."""
        scores = torch.from_numpy(encoder.encode(self.seen) @ item_vectors.T)
        scores[_places(self.seen)] = -torch.inf
        depth = min(_DEPTH, scores.shape[1])
        best = scores.topk(depth, dim=1).indices
        wanted = torch.zeros(scores.shape, dtype=torch.bool)
        wanted[_places(self.held)] = True
        discounts = 1.0 / torch.arange(2, depth + 2).double().log2()
        ideal = discounts.cumsum(0)[torch.from_numpy(self.held.lengths).clamp(max=depth) - 1]
        return float((wanted.gather(1, best).double() @ discounts / ideal).mean())


def part(
    histories: Histories, patience: int, seed: int, *, latest: bool = False
) -> tuple[Histories, Validation | None]:
    """Part histories into what to train on and what some users give to validation.

    Nothing is held out where `patience` is 0 or no user has 5 events.

    Args:
        histories: Those of all users.
        patience: The config's.
        seed: Draws the users, and what they give.
        latest: Whether users give their latest events, for models of the order of events.
    """
    able = np.flatnonzero(histories.lengths >= _SHORTEST)
    if not patience or not len(able):
        return histories, None
    rng = np.random.default_rng(abs(seed))
    users = np.sort(rng.permutation(able)[:_USERS])
    gives = np.zeros(len(histories), np.int64)
    gives[users] = np.maximum(np.rint(histories.lengths[users] * _SHARE), 1)
    keys = np.arange(len(histories.items)) if latest else rng.random(len(histories.items))
    order = np.lexsort((keys, histories.users))
    from_end = np.repeat(histories.offsets[1:], histories.lengths) - np.arange(len(order))
    held = np.empty(len(order), bool)
    held[order] = from_end <= np.repeat(gives, histories.lengths)
    kept = histories.keep(~held)
    return kept, Validation(kept.take(users), histories.keep(held).take(users))


def _places(histories: Histories) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(histories.users), torch.from_numpy(histories.items.astype(np.int64))
