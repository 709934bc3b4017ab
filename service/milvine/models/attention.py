"""Causal self-attention over the items of histories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from milvine.models.modules import dense, drawn_normal

Drop: TypeAlias = Callable[[Tensor], Tensor]
"""Leaves out some numbers of a tensor (users, n, d)."""
_INITIAL_SCALE = 0.02


def _nothing(x: Tensor) -> Tensor:
    return x


class Attention(nn.Module):
    """Items and their places, through blocks, to what is expected next."""

    def __init__(
        self,
        item_count: int,
        dimension: int,
        *,
        length: int,
        blocks: int,
        heads: int,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.items = drawn_normal((item_count, dimension), _INITIAL_SCALE, rng)
        self.places = drawn_normal((length, dimension), _INITIAL_SCALE, rng)
        self.blocks = nn.ModuleList(_Block(dimension, heads, rng) for _ in range(blocks))
        self.norm = nn.LayerNorm(dimension)

    def forward(self, items: Tensor, drop: Drop = _nothing) -> Tensor:
        """What is expected after each place: (users, n, d) of items (users, n), oldest first.

        A place sees itself and those before it, so padding at the end changes nothing. Training
        leaves out numbers by `drop`.
        """
        scale = self.items.shape[1] ** 0.5
        x = F.embedding(items, self.items) * scale + self.places[: items.shape[1]]
        x = drop(x)
        for block in self.blocks:
            x = block(x, drop)
        expected: Tensor = self.norm(x)
        return expected


class _Block(nn.Module):
    """Attention and a network at each place, each added to what comes in."""

    def __init__(self, dimension: int, heads: int, rng: torch.Generator) -> None:
        super().__init__()
        self._heads = heads
        self.attention_norm = nn.LayerNorm(dimension)
        self.attend = dense(dimension, 3 * dimension, rng)
        self.merge = dense(dimension, dimension, rng)
        self.place_norm = nn.LayerNorm(dimension)
        self.widen = dense(dimension, dimension, rng)
        self.narrow = dense(dimension, dimension, rng)

    def forward(self, x: Tensor, drop: Drop) -> Tensor:
        x = x + drop(self._attended(self.attention_norm(x)))
        inner = drop(F.gelu(self.widen(self.place_norm(x))))
        return x + drop(self.narrow(inner))

    def _attended(self, x: Tensor) -> Tensor:
        parts = self.attend(x).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        merged: Tensor = self.merge(attended.transpose(1, 2).flatten(2))
        return merged
