"""Causal self-attention over the items of histories."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from milvine.models.modules import dense, drawn_normal, dropped

_INITIAL_SCALE = 0.02


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

    def forward(
        self, items: Tensor, dropout: float = 0.0, rng: torch.Generator | None = None
    ) -> Tensor:
        """What is expected after each place: (users, n, d) of items (users, n), oldest first.

        A place sees itself and those before it, so padding at the end changes nothing.
        """
        scale = self.items.shape[1] ** 0.5
        x = F.embedding(items, self.items) * scale + self.places[: items.shape[1]]
        x = dropped(x, dropout, rng)
        for block in self.blocks:
            x = block(x, dropout, rng)
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

    def forward(self, x: Tensor, dropout: float, rng: torch.Generator | None) -> Tensor:
        x = x + dropped(self._attended(self.attention_norm(x)), dropout, rng)
        inner = dropped(F.gelu(self.widen(self.place_norm(x))), dropout, rng)
        return x + dropped(self.narrow(inner), dropout, rng)

    def _attended(self, x: Tensor) -> Tensor:
        parts = self.attend(x).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        merged: Tensor = self.merge(attended.transpose(1, 2).flatten(2))
        return merged
