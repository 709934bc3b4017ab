"""The networks of two towers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from milvine.models.feature_tower import FeatureTower, Rows
from milvine.models.features import Features
from milvine.models.modules import dense
from milvine.models.spectral import Start


@dataclass(frozen=True, slots=True, eq=False)
class Top:
    """What a pooled history goes through: one hidden layer, added to the pool."""

    first: Tensor
    bias: Tensor
    second: Tensor

    def __call__(self, pooled: Tensor) -> Tensor:
        """The users (n, d) of pooled histories (n, d)."""
        return pooled + F.linear(torch.relu(F.linear(pooled, self.first, self.bias)), self.second)


class Towers(nn.Module):
    """Both towers; they have the items' features in common, each its own reading of them."""

    def __init__(self, begin: Start, features: Features, rng: torch.Generator) -> None:
        super().__init__()
        size = begin.sources.shape[1]
        shape = (features.token_count, features.numbers.shape[1], size)
        self.sources = nn.Parameter(begin.sources)
        self.targets = nn.Parameter(begin.targets)
        self.source_features = FeatureTower(*shape, rng)
        self.target_features = FeatureTower(*shape, rng)
        self.first = dense(size, size, rng)
        self.second = nn.Linear(size, size, bias=False)
        nn.init.zeros_(self.second.weight)
        self._has_features = bool(features.token_count or features.numbers.shape[1])

    def items(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """What items add to histories, and what users are compared with: (items, d) each."""
        if not self._has_features:
            return self.sources, self.targets
        return (
            self.sources + self.source_features(rows),
            self.targets + self.target_features(rows),
        )

    def top(self) -> Top:
        """The network on top of pooled histories."""
        return Top(self.first.weight, self.first.bias, self.second.weight)
