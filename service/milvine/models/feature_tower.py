"""The networks that read features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from milvine.models.features import Features
from milvine.models.modules import dense, drawn_normal

_INITIAL_SCALE = 0.02


class FeatureTower(nn.Module):
    """The sum of the tokens' vectors by their weights, plus a map of the numbers."""

    def __init__(
        self, token_count: int, number_count: int, dimension: int, rng: torch.Generator
    ) -> None:
        super().__init__()
        # A row for no token at all keeps the table from being empty.
        self.tokens = drawn_normal((token_count + 1, dimension), _INITIAL_SCALE, rng)
        self.numbers = dense(number_count, dimension, rng) if number_count else None

    def forward(self, features: Rows) -> Tensor:
        """The vectors (rows, d) of features."""
        vectors = F.embedding_bag(
            features.tokens,
            self.tokens,
            features.starts,
            mode="sum",
            per_sample_weights=features.weights,
        )
        return vectors if self.numbers is None else vectors + self.numbers(features.numbers)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Features on the device that learns from them."""

    offsets: Tensor
    """(rows + 1,) int64"""
    tokens: Tensor
    """(tokens,) int64"""
    weights: Tensor
    """(tokens,) float32"""
    numbers: Tensor
    """(rows, n) float32"""

    @classmethod
    def of(cls, features: Features, device: str) -> Rows:
        """Those features on a device."""
        return cls(
            torch.from_numpy(features.offsets.astype(np.int64)).to(device),
            torch.from_numpy(features.tokens.astype(np.int64)).to(device),
            torch.from_numpy(np.require(features.weights, np.float32, "W")).to(device),
            torch.from_numpy(np.require(features.numbers, np.float32, "W")).to(device),
        )

    @property
    def starts(self) -> Tensor:
        """(rows,) int64: the first token of each row."""
        return self.offsets[:-1]

    def take(self, rows: Tensor) -> Rows:
        """Some rows (n,), in their order."""
        lengths = self.offsets.diff()[rows]
        offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
        own = torch.repeat_interleave(lengths)
        places = torch.arange(len(own), device=rows.device)
        places = places + (self.offsets[rows] - offsets[:-1])[own]
        return Rows(offsets, self.tokens[places], self.weights[places], self.numbers[rows])
