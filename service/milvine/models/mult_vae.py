"""A variational autoencoder of histories with a multinomial likelihood.

Liang, Krishnan, Hoffman and Jebara 2018, "Variational autoencoders for collaborative filtering",
section 2: a history, some events of it dropped, becomes a normal distribution of tastes; a taste
drawn from it gives every item its share, and the loss is minus the logarithm of the shares of the
history's items plus how far the distribution is from the standard one. The last layer of the
decoder are the vectors of items, its bias one dimension more, and the vector of a user is what
the mean of the distribution becomes before that layer.

Two things make a pass cheap on catalogs of any size: the shares stand against drawn items instead
of all, and the outer layers start at the spectrum (`spectral`), the inner ones as the identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
from torch import Tensor, nn

from milvine.domain.model import Setting
from milvine.models import config as settings_of
from milvine.models.base import (
    ITEM_VECTORS,
    Dataset,
    Encoder,
    Feedback,
    Fitted,
    Histories,
    Run,
    Tensors,
)
from milvine.models.batches import Batch, Drawn, Negatives, Users, batch_of, item_counts
from milvine.models.config import real, whole
from milvine.models.loop import learn
from milvine.models.modules import identity, load, stored
from milvine.models.spectral import start
from milvine.models.steps import Schedule
from milvine.models.validation import Validation, part

_SHRINKAGE = 10.0
"""The events that are added to each user and item at the spectral start."""
_FIRST_LOG_VARIANCE = -4.0
"""Tastes are nearly certain at first, so that noise does not hide what the start knows."""


@dataclass(frozen=True, slots=True)
class MultVaeConfig(Schedule):
    """Settings of the variational autoencoder."""

    epochs: int = whole(15, 1, 1_000)
    """The passes over the data, at most."""
    learning_rate: float = real(0.001, 0, excludes_low=True)
    """The length of the first steps; it falls to a twentieth along a line."""
    dropout: float = real(0.5, 0, 0.95)
    """The share of its events that a history loses before it is encoded, in training."""
    divergence_weight: float = real(0.01, 0)
    """What the distance from the standard distribution counts; half of it in the first pass."""
    negative_count: int = whole(1_024, 1, 65_536)
    """The negatives that the users of a batch share."""
    negative_exponent: float = real(0.5, 0, 1)
    """The power of its frequency by which an item is drawn as a negative."""


@dataclass(frozen=True, slots=True)
class MultVae:
    """The family `mult_vae`."""

    name: str = "mult_vae"
    learns_from: Feedback = Feedback.IMPLICIT
    is_parallel: bool = True

    def config(self, settings: Mapping[str, Setting]) -> MultVaeConfig:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""
        return settings_of.read(MultVaeConfig, self.name, settings)

    def fit(self, dataset: Dataset, config: MultVaeConfig, run: Run) -> Fitted:
        """Learn the encoder and the decoder."""
        histories, validation = part(dataset.histories, config.patience, config.seed)
        item_count, size = len(dataset.items), config.embedding_size
        begin = start(histories, item_count, size, shrinkage=_SHRINKAGE, seed=config.seed, run=run)
        network = _Autoencoder(begin.sources, begin.targets).to(run.device)
        counts = item_counts(histories, item_count, run.device)
        negatives = Negatives.by_count(counts, config.negative_exponent, config.negative_count)
        users = Users(histories, run.device)
        learned = learn(_Learner(network, config, users, negatives, validation), config, run)
        return Fitted(_tensors(network), *learned)

    def encoder(self, config: MultVaeConfig, tensors: Tensors) -> Encoder:
        """The encoder: that of the autoencoder, and its decoder up to the last layer."""
        vectors = tensors[ITEM_VECTORS]
        empty = torch.zeros(len(vectors), config.embedding_size)
        network = _Autoencoder(empty, empty)
        outer = {"network.targets": vectors[:, :-1], "network.bias": vectors[:, -1]}
        load(network, {**tensors, **outer})
        return _MultVaeEncoder(network)


class _Autoencoder(nn.Module):
    """Histories to tastes and back."""

    def __init__(self, sources: Tensor, targets: Tensor) -> None:
        super().__init__()
        size = sources.shape[1]
        self.sources = nn.Parameter(sources)
        self.mean = identity(size)
        self.log_variance = nn.Linear(size, size)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, _FIRST_LOG_VARIANCE)
        self.inner = identity(size)
        self.targets = nn.Parameter(targets)
        self.bias = nn.Parameter(torch.zeros(len(targets)))

    def tastes(self, batch: Batch, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances (users, d); `kept` (events,) weighs the events."""
        lengths = batch.lengths.clamp(min=1)
        weights = kept * lengths.float().rsqrt()[batch.rows]
        pooled = F.embedding_bag(
            batch.items, self.sources, batch.starts, mode="sum", per_sample_weights=weights
        )
        hidden = torch.tanh(pooled)
        return self.mean(hidden), self.log_variance(hidden)

    def decoded(self, tastes: Tensor) -> Tensor:
        """What the last layer compares with items: (users, d) of tastes (users, d)."""
        return torch.tanh(self.inner(tastes))


def _tensors(network: _Autoencoder) -> Tensors:
    tensors = dict(stored(network))
    outer = (tensors.pop("network.targets"), tensors.pop("network.bias")[:, None])
    return {ITEM_VECTORS: np.concatenate(outer, axis=1), **tensors}


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    network: _Autoencoder
    config: MultVaeConfig
    users: Users
    negatives: Negatives
    validation: Validation | None

    def batches(self, rng: torch.Generator) -> Iterator[Batch]:
        return self.users.batches(self.config.batch_size, rng)

    def examples(self, batch: Batch) -> int:
        return len(batch.items)

    def loss(self, batch: Batch, rng: torch.Generator) -> Tensor:
        share, device = self.config.dropout, batch.items.device
        kept = batch.of_events(lambda n: torch.rand(n, generator=rng, device=device)) >= share
        mean, log_variance = self.network.tastes(batch, kept / (1 - share))
        size = mean.shape[1]
        noise = batch.of_users(lambda n: torch.randn(n, size, generator=rng, device=device))
        decoded = self.network.decoded(mean + noise * (log_variance / 2).exp())
        likelihood = self._log_shares(decoded, batch, self.negatives.draw(batch, rng)).mean()
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        penalty = F.embedding(batch.items, self.network.targets).square().sum(dim=1).mean()
        return (
            self.config.divergence_weight * divergence / len(batch.items)
            + self.config.regularization * penalty
            - likelihood
        )

    def _log_shares(self, decoded: Tensor, batch: Batch, drawn: Drawn) -> Tensor:
        """(events,): the logarithm of the share that each event's item has of all items."""
        targets, bias = self.network.targets, self.network.bias
        others = decoded @ F.embedding(drawn.items, targets).mT + bias[drawn.items]
        rest = drawn.logits(others).logsumexp(dim=1)
        own = torch.einsum("ed,ed->e", decoded[batch.rows], F.embedding(batch.items, targets))
        own = (own + bias[batch.items]).float()
        return own - torch.logaddexp(rest, _log_sums(own, batch))[batch.rows]

    def metric(self) -> float | None:
        if self.validation is None:
            return None
        fitted = Fitted(_tensors(self.network), ())
        encoder = MultVae().encoder(self.config, fitted.tensors)
        return self.validation.ndcg(encoder, fitted.item_vectors)


def _log_sums(values: Tensor, batch: Batch) -> Tensor:
    """(users,): the logarithm of the sum of exponentials of each user's events (events,)."""
    most = values.new_full((len(batch),), -torch.inf)
    most = most.scatter_reduce(0, batch.rows, values.detach(), "amax")
    sums = torch.zeros_like(most).index_add(0, batch.rows, (values - most[batch.rows]).exp())
    return sums.log() + most


@dataclass(frozen=True, slots=True, eq=False)
class _MultVaeEncoder:
    network: _Autoencoder

    @property
    def dimension(self) -> int:
        return self.taste_dimension + 1

    @property
    def taste_dimension(self) -> int:
        return self.network.sources.shape[1]

    def encode(self, histories: Histories) -> NDArray[np.float32]:
        batch = batch_of(histories)
        with torch.inference_mode():
            mean, _ = self.network.tastes(batch, torch.ones(len(batch.items)))
            return F.pad(self.network.decoded(mean), (0, 1), value=1.0).numpy()
