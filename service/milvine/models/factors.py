"""The parameters of factorisations whose users are pools of their items."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from milvine.models.base import ITEM_VECTORS, Histories, Run, Tensors
from milvine.models.batches import Batch
from milvine.models.pooling import SOURCES, PooledEncoder
from milvine.models.spectral import Start, start
from milvine.models.steps import Schedule
from milvine.models.validation import Validation


class Factors(nn.Module):
    """Two vectors an item: what it adds to its users, and what users are compared with."""

    def __init__(self, begin: Start) -> None:
        super().__init__()
        self.sources = nn.Parameter(begin.sources)
        self.targets = nn.Parameter(begin.targets)

    @classmethod
    def of(
        cls, histories: Histories, item_count: int, schedule: Schedule, shrinkage: float, run: Run
    ) -> Factors:
        """The parameters at the spectral start."""
        size, seed = schedule.embedding_size, schedule.seed
        return cls(start(histories, item_count, size, shrinkage=shrinkage, seed=seed, run=run))

    def penalty(self, batch: Batch) -> Tensor:
        """The mean squared length of the vectors of a batch's events."""
        tables = (self.sources, self.targets)
        lengths = [F.embedding(batch.items, table).square().sum(dim=1).mean() for table in tables]
        return lengths[0] + lengths[1]

    def tensors(self) -> Tensors:
        """What an artifact keeps."""
        return {
            ITEM_VECTORS: self.targets.detach().cpu().numpy(),
            SOURCES: self.sources.detach().cpu().numpy(),
        }

    def metric(self, validation: Validation | None, shrinkage: float) -> float | None:
        """The metric of what is held out, if anything is."""
        if validation is None:
            return None
        encoder = PooledEncoder.of(self.tensors(), shrinkage)
        return validation.ndcg(encoder, self.targets.detach().cpu().numpy())
