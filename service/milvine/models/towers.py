"""The networks of two towers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from milvine.models import field_start
from milvine.models.batches import Batch
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

    def __init__(
        self, begin: Start, features: Features, of_users: Features, rng: torch.Generator
    ) -> None:
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
        self.user_features = FeatureTower(
            of_users.token_count, of_users.numbers.shape[1], size, rng
        )
        self.reads_items = _has_any(features)
        self.reads_users = _has_any(of_users)

    def begin_items(self, rows: Rows, counts: Tensor) -> None:
        """Let the items' features say what they can of the start, and own vectors the rest.

        `counts` is how much each item counts, (items,).
        """
        if not self.reads_items:
            return
        for tower, own in (
            (self.source_features, self.sources),
            (self.target_features, self.targets),
        ):
            field_start.begin(tower, rows, own.detach(), counts)
            with torch.no_grad():
                own.sub_(tower(rows))

    def begin_users(self, rows: Rows, everyone: Batch) -> None:
        """Let the users' features say what the events of such users add, on average.

        `rows` are the features of everyone, and `everyone` has their histories.
        """
        if self.reads_users:
            means = F.embedding_bag(everyone.items, self.sources, everyone.starts, mode="mean")
            has_events = (everyone.lengths > 0).float()
            field_start.begin(self.user_features, rows, means.detach(), has_events)

    def items(self, rows: Rows, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What items add to histories, and what users are compared with: (items, d) each.

        Of the items that a mask `own` (items, 1) leaves out, the latter is what their features say.
        """
        if not self.reads_items:
            return self.sources, self.targets
        targets = self.targets if own is None else self.targets * own
        return self.sources + self.source_features(rows), targets + self.target_features(rows)

    def new_items(self, rows: Rows) -> Tensor:
        """(1 + d,): a factor and an offset by which new items are made of what features say.

        What is learned for all items tells little of each, and new ones would hardly ever be among
        the best. So they are spread as widely as known ones are, and around the same middle.
        """
        said, whole = self.target_features(rows), self.items(rows)[1]
        spreads = [(v - v.mean(dim=0)).square().sum() for v in (whole, said)]
        factor = (spreads[0] / spreads[1]).sqrt() if spreads[1] > 0 else spreads[1].new_ones(())
        return torch.cat((factor[None], whole.mean(dim=0) - factor * said.mean(dim=0)))

    def top(self) -> Top:
        """The network on top of pooled histories."""
        return Top(self.first.weight, self.first.bias, self.second.weight)


def _has_any(features: Features) -> bool:
    return bool(features.token_count or features.numbers.shape[1])
