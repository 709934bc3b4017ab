"""Bayesian personalised ranking: what a user has above what the user has not.

Rendle, Freudenthaler, Gantner and Schmidt-Thieme 2009, "BPR: Bayesian personalized ranking from
implicit feedback", sections 4 and 5: for events (u, i) and items j drawn evenly from those that u
has not, the loss is `-log sigmoid(s_ui - s_uj)`, plus an L2 penalty on what a step touches. Users
are pools of their items, as `pooling` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from milvine.domain.model import Setting
from milvine.models import config as settings_of
from milvine.models.base import Dataset, Encoder, Feedback, Fitted, Run, Tensors
from milvine.models.batches import Batch, Users
from milvine.models.config import real, whole
from milvine.models.factors import Factors
from milvine.models.loop import learn
from milvine.models.pooling import Pooled, PooledEncoder
from milvine.models.sampling import drawn_evenly, has
from milvine.models.steps import Schedule
from milvine.models.validation import Validation, part


@dataclass(frozen=True, slots=True)
class BprConfig(Schedule):
    """Settings of Bayesian personalised ranking."""

    epochs: int = whole(8, 1, 1_000)
    """The passes over the data, at most."""
    learning_rate: float = real(0.001, 0, excludes_low=True)
    """The length of the first steps; it falls to a twentieth along a line."""
    negative_count: int = whole(1, 1, 1_024)
    """The items that each event is compared with."""
    shrinkage: float = real(10.0, 0)
    """The events that are added to each user and item, so that rare ones weigh less."""


@dataclass(frozen=True, slots=True)
class Bpr:
    """The family `bpr`."""

    name: str = "bpr"
    learns_from: Feedback = Feedback.IMPLICIT
    is_parallel: bool = True

    def config(self, settings: Mapping[str, Setting]) -> BprConfig:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""
        return settings_of.read(BprConfig, self.name, settings)

    def fit(self, dataset: Dataset, config: BprConfig, run: Run) -> Fitted:
        """Learn what items add to their users, and item vectors."""
        histories, validation = part(dataset.histories, config.patience, config.seed)
        network = Factors.of(histories, len(dataset.items), config, config.shrinkage, run)
        users = Users(histories, run.device)
        learned = learn(_Learner(network, config, users, validation), config, run)
        return Fitted(network.tensors(), *learned)

    def encoder(self, config: BprConfig, tensors: Tensors) -> Encoder:
        """The encoder: the pool of a history."""
        return PooledEncoder.of(tensors, config.shrinkage)


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    network: Factors
    config: BprConfig
    users: Users
    validation: Validation | None

    def batches(self, rng: torch.Generator) -> Iterator[Batch]:
        return self.users.batches(self.config.batch_size, rng)

    def examples(self, batch: Batch) -> int:
        return len(batch.items)

    def loss(self, batch: Batch, rng: torch.Generator) -> Tensor:
        sources, targets = self.network.sources, self.network.targets
        pooled = Pooled.of(batch, sources, self.config.shrinkage)
        items = drawn_evenly(batch, len(targets), self.config.negative_count, rng)
        negatives = torch.einsum(
            "ed,end->en", pooled.users[batch.rows], F.embedding(items, targets)
        )
        leads = pooled.positives(batch, targets)[:, None] - negatives
        taken = has(batch, items, len(targets))
        # What the user has as well is no negative: it counts as the same item, a lead of 0.
        loss = F.softplus(-leads.masked_fill(taken, 0.0)).mean()
        return loss + self.config.regularization * self.network.penalty(batch)

    def metric(self) -> float | None:
        return self.network.metric(self.validation, self.config.shrinkage)
