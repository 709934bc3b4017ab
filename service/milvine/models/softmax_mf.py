"""Factorisation by softmax: each item of a history against many that are not in it.

The loss of an event (u, i) is

    -log( exp(s_ui) / (exp(s_ui) + sum over items j that u has not of exp(s_uj)) )

with the sum estimated from negatives that the users of a batch share, corrected for how often
they are drawn (Wu et al. 2022, "On the effectiveness of sampled softmax loss for item
recommendation", section 3). Users are pools of their items, as `pooling` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from milvine.domain.model import Setting
from milvine.models import config as settings_of
from milvine.models.base import Dataset, Encoder, Feedback, Fitted, Run, Tensors
from milvine.models.batches import Batch, Negatives, Users, item_counts
from milvine.models.config import real, whole
from milvine.models.factors import Factors
from milvine.models.loop import learn
from milvine.models.pooling import Pooled, PooledEncoder, softmax_loss
from milvine.models.steps import Schedule
from milvine.models.validation import Validation, part


@dataclass(frozen=True, slots=True)
class SoftmaxMfConfig(Schedule):
    """Settings of factorisation by softmax."""

    epochs: int = whole(8, 1, 1_000)
    """The passes over the data, at most."""
    learning_rate: float = real(0.002, 0, excludes_low=True)
    """The length of the first steps; it falls to a twentieth along a line."""
    negative_count: int = whole(1_024, 1, 65_536)
    """The negatives that the users of a batch share."""
    negative_exponent: float = real(0.5, 0, 1)
    """The power of its frequency by which an item is drawn as a negative."""
    shrinkage: float = real(10.0, 0)
    """The events that are added to each user and item, so that rare ones weigh less."""


@dataclass(frozen=True, slots=True)
class SoftmaxMf:
    """The family `softmax_mf`."""

    name: str = "softmax_mf"
    learns_from: Feedback = Feedback.IMPLICIT
    is_parallel: bool = True

    def config(self, settings: Mapping[str, Setting]) -> SoftmaxMfConfig:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""
        return settings_of.read(SoftmaxMfConfig, self.name, settings)

    def fit(self, dataset: Dataset, config: SoftmaxMfConfig, run: Run) -> Fitted:
        """Learn what items add to their users, and item vectors."""
        histories, validation = part(dataset.histories, config.patience, config.seed)
        item_count = len(dataset.items)
        network = Factors.of(histories, item_count, config, config.shrinkage, run)
        counts = item_counts(histories, item_count, run.device)
        negatives = Negatives.by_count(counts, config.negative_exponent, config.negative_count)
        users = Users(histories, run.device)
        learned = learn(_Learner(network, config, users, negatives, validation), config, run)
        return Fitted(network.tensors(), *learned)

    def encoder(self, config: SoftmaxMfConfig, tensors: Tensors) -> Encoder:
        """The encoder: the pool of a history."""
        return PooledEncoder.of(tensors, config.shrinkage)


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    network: Factors
    config: SoftmaxMfConfig
    users: Users
    negatives: Negatives
    validation: Validation | None

    def batches(self, rng: torch.Generator) -> Iterator[Batch]:
        return self.users.batches(self.config.batch_size, rng)

    def examples(self, batch: Batch) -> int:
        return len(batch.items)

    def loss(self, batch: Batch, rng: torch.Generator) -> Tensor:
        sources, targets = self.network.sources, self.network.targets
        pooled = Pooled.of(batch, sources, self.config.shrinkage)
        loss = softmax_loss(pooled, batch, targets, self.negatives.draw(batch, rng))
        return loss + self.config.regularization * self.network.penalty(batch)

    def metric(self) -> float | None:
        return self.network.metric(self.validation, self.config.shrinkage)
