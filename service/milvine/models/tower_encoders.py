"""What two towers make of users and items once they have learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
from torch import Tensor

from milvine.models.base import Fields, Histories, Tensors
from milvine.models.batches import Batch, batch_of
from milvine.models.feature_tower import FeatureTower, Rows
from milvine.models.features import Features
from milvine.models.fields import Encoding
from milvine.models.modules import load
from milvine.models.pooling import SOURCES
from milvine.models.text_map import TextMap
from milvine.models.towers import Top

_TOP = ("network.first.weight", "network.first.bias", "network.second.weight")


@dataclass(frozen=True, slots=True)
class Pool:
    """How a history and what fields say become a user, before the network on top."""

    strength_scale: float
    shrinkage: float

    def weights(self, batch: Batch) -> Tensor:
        """(events,): how much each event weighs in its history."""
        return 1.0 + self.strength_scale * batch.strengths.clamp(min=0.0).log1p()

    def pooled(self, sums: Tensor, totals: Tensor, said: Tensor | None) -> Tensor:
        """(n, d): users by the sums of their histories, their weights (n,), and what fields say.

        Fields say of what kind the events of such users are, and stand for as many of them as
        `shrinkage` where there are none; what a user did soon counts more.
        """
        pooled: Tensor = sums * (totals + self.shrinkage).clamp(min=1.0).rsqrt()[:, None]
        if said is None:
            return pooled
        events = max(self.shrinkage, 1.0)
        weights: Tensor = events**1.5 / (totals + events)
        return pooled + said * weights[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """How one side's features are read, outside of training."""

    tower: FeatureTower
    text: TextMap | None

    @classmethod
    def of(cls, tensors: Tensors, tower: str, text: str) -> Reading:
        """The reading by a tower and a map of texts that an artifact has under those names."""
        own = f"network.{tower}."
        weights = {"network." + k.removeprefix(own): v for k, v in tensors.items() if own in k}
        token_count, size = weights["network.tokens"].shape
        numbers = weights.get("network.numbers.weight")
        number_count = 0 if numbers is None else numbers.shape[1]
        found = FeatureTower(token_count - 1, number_count, size, torch.Generator().manual_seed(0))
        load(found, weights)
        return cls(found, TextMap.of(tensors, text))

    def __call__(self, features: Features) -> Tensor:
        """The vectors (rows, d) of features.

        Raises:
            FailedPrecondition: The reader of texts is not installed here, or makes other vectors.
        """
        told = self.text.read(features) if self.text else features
        said: Tensor = self.tower(Rows.of(told, "cpu"))
        return said


@dataclass(frozen=True, slots=True, eq=False)
class NewItems:
    """The item's tower, for items that are known by their fields alone."""

    encoding: Encoding
    reading: Reading
    made: NDArray[np.generic]
    """(1 + d,): a factor and an offset of what features say."""

    def encode(self, items: Sequence[Fields]) -> NDArray[np.float32]:
        """The vectors (items, d); NaN where nothing is known.

        Raises:
            FailedPrecondition: The reader of texts is not installed here, or makes other vectors.
        """
        features = self.encoding.of(items)
        with torch.inference_mode():
            said = self.reading(features).numpy()
        vectors = (said * self.made[0] + self.made[1:]).astype(np.float32, copy=False)
        return np.where(features.is_known[:, None], vectors, np.float32(np.nan))


@dataclass(frozen=True, slots=True, eq=False)
class TowerEncoder:
    """The user's tower."""

    sources: Tensor
    """(items, d): what items add to histories."""
    top: Top
    fields: Reading | None
    """Reads the fields of users, where the model learned from any."""
    pool: Pool

    @classmethod
    def of(cls, tensors: Tensors, fields: Reading | None, pool: Pool) -> TowerEncoder:
        """The tower of an artifact's tensors."""
        return cls(
            _tensor(tensors[SOURCES]), Top(*(_tensor(tensors[n]) for n in _TOP)), fields, pool
        )

    @property
    def dimension(self) -> int:
        """The dimensions of its vectors."""
        return self.sources.shape[1]

    @property
    def taste_dimension(self) -> int:
        """All of them: there is no bias."""
        return self.dimension

    def encode(self, histories: Histories) -> NDArray[np.float32]:
        """The vectors (users, d).

        Raises:
            FailedPrecondition: The reader of texts is not installed here, or makes other vectors.
        """
        batch = batch_of(histories)
        weights = self.pool.weights(batch)
        with torch.inference_mode():
            sums = F.embedding_bag(
                batch.items, self.sources, batch.starts, mode="sum", per_sample_weights=weights
            )
            totals = torch.zeros(len(batch)).index_add(0, batch.rows, weights)
            said = None
            if self.fields is not None and histories.features is not None:
                said = self.fields(histories.features)
            vectors = self.top(self.pool.pooled(sums, totals, said))
        return vectors.numpy()


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.require(array, np.float32, "W"))
