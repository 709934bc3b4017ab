"""Items drawn for each event by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from milvine.models.batches import Batch


def drawn_evenly(batch: Batch, item_count: int, count: int, rng: torch.Generator) -> Tensor:
    """(events, count) int64: rows of items, each as likely as any other."""

    def draw(events: int) -> Tensor:
        return torch.randint(item_count, (events, count), generator=rng, device=batch.items.device)

    return batch.of_events(draw)


def has(batch: Batch, items: Tensor, item_count: int) -> Tensor:
    """(events, count) bool: whether the user of each event has the items (events, count)."""
    own = batch.rows * item_count + batch.items
    return torch.isin(batch.rows[:, None] * item_count + items, own)
