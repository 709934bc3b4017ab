"""Neural collaborative filtering: a factorised half that retrieves, and a network that re-ranks.

He et al. 2017, "Neural collaborative filtering", section 3.4 (NeuMF): the logit of a pair is that
of a factorisation plus that of a network over both vectors of a second, smaller set, and events
are told from drawn items by the binary cross-entropy. Users are pools of their items in both
halves, as `pooling` says. The factorised half is held to the same loss alone as well, for it
retrieves: its logit is an inner product. The whole is the `scorer` of what was retrieved.
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
    Scorer,
    Tensors,
)
from milvine.models.batches import Batch, Users
from milvine.models.config import real, whole
from milvine.models.loop import learn
from milvine.models.modules import dense, drawn_normal, load, stored
from milvine.models.pooling import SOURCES, Pooled, PooledEncoder
from milvine.models.sampling import drawn_evenly, has
from milvine.models.spectral import Start, start
from milvine.models.steps import Schedule
from milvine.models.validation import Validation, part

_INITIAL_SCALE = 0.05


@dataclass(frozen=True, slots=True)
class NeuralCfConfig(Schedule):
    """Settings of neural collaborative filtering."""

    epochs: int = whole(8, 1, 1_000)
    """The passes over the data, at most."""
    batch_size: int = whole(4_096, 1, 2**20)
    """About how many events a step learns from; a user's stay together."""
    learning_rate: float = real(0.001, 0, excludes_low=True)
    """The length of the first steps; it falls to a twentieth along a line."""
    network_size: int = whole(32, 2, 1_024)
    """The dimensions of the vectors that the network reads; its layers halve from there."""
    negative_count: int = whole(4, 1, 1_024)
    """The items that are drawn for each event."""
    shrinkage: float = real(10.0, 0)
    """The events that are added to each user and item, so that rare ones weigh less."""


@dataclass(frozen=True, slots=True)
class NeuralCf:
    """The family `neural_cf`."""

    name: str = "neural_cf"
    learns_from: Feedback = Feedback.IMPLICIT
    is_parallel: bool = True

    def config(self, settings: Mapping[str, Setting]) -> NeuralCfConfig:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""
        return settings_of.read(NeuralCfConfig, self.name, settings)

    def fit(self, dataset: Dataset, config: NeuralCfConfig, run: Run) -> Fitted:
        """Learn both halves together."""
        histories, validation = part(dataset.histories, config.patience, config.seed)
        item_count, size, seed = len(dataset.items), config.embedding_size, config.seed
        begin = start(histories, item_count, size, shrinkage=config.shrinkage, seed=seed, run=run)
        network = _network(begin, config).to(run.device)
        users = Users(histories, run.device)
        learned = learn(_Learner(network, config, users, validation), config, run)
        return Fitted(_tensors(network), *learned)

    def encoder(self, config: NeuralCfConfig, tensors: Tensors) -> Encoder:
        """The encoder of the factorised half: the pool of a history."""
        return PooledEncoder.of(tensors, config.shrinkage)

    def scorer(self, config: NeuralCfConfig, tensors: Tensors) -> Scorer:
        """The network's half, for items that were retrieved by the other."""
        empty = torch.zeros(tensors[ITEM_VECTORS].shape)
        network = _network(Start(empty, empty, empty), config)
        outer = {"network.sources": tensors[SOURCES], "network.targets": tensors[ITEM_VECTORS]}
        load(network, {**tensors, **outer})
        return _NeuralCfScorer.of(network, config.shrinkage)


class _NeuMf(nn.Module):
    """The factors, the network, and the bias that both logits have."""

    def __init__(self, begin: Start, size: int, rng: torch.Generator) -> None:
        super().__init__()
        item_count = len(begin.sources)
        self.sources = nn.Parameter(begin.sources)
        self.targets = nn.Parameter(begin.targets)
        self.read_sources = drawn_normal((item_count, size), _INITIAL_SCALE, rng)
        self.read_targets = drawn_normal((item_count, size), _INITIAL_SCALE, rng)
        self.first = dense(2 * size, size, rng)
        self.second = dense(size, size // 2, rng)
        self.last = dense(size // 2, 1, rng)
        self.bias = nn.Parameter(torch.zeros(()))

    def read(self, users: Tensor, items: Tensor) -> Tensor:
        """The network's logits (...) of pairs of vectors (..., size)."""
        hidden = torch.relu(self.first(torch.cat((users, items), dim=-1)))
        logits: Tensor = self.last(torch.relu(self.second(hidden)))
        return logits.squeeze(-1)


def _network(begin: Start, config: NeuralCfConfig) -> _NeuMf:
    return _NeuMf(begin, config.network_size, torch.Generator().manual_seed(config.seed))


def _tensors(network: _NeuMf) -> Tensors:
    tensors = dict(stored(network))
    vectors, sources = tensors.pop("network.targets"), tensors.pop("network.sources")
    return {ITEM_VECTORS: vectors, SOURCES: sources, **tensors}


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    network: _NeuMf
    config: NeuralCfConfig
    users: Users
    validation: Validation | None

    def batches(self, rng: torch.Generator) -> Iterator[Batch]:
        return self.users.batches(self.config.batch_size, rng)

    def examples(self, batch: Batch) -> int:
        return len(batch.items)

    def loss(self, batch: Batch, rng: torch.Generator) -> Tensor:
        network, shrinkage = self.network, self.config.shrinkage
        drawn = drawn_evenly(batch, len(network.targets), self.config.negative_count, rng)
        items = torch.cat((batch.items[:, None], drawn), dim=1)
        users = Pooled.of(batch, network.sources, shrinkage).beside(batch, drawn.shape[1])
        factorised = torch.einsum("end,end->en", users, F.embedding(items, network.targets))
        readers = Pooled.of(batch, network.read_sources, shrinkage).beside(batch, drawn.shape[1])
        read = network.read(readers, F.embedding(items, network.read_targets))
        truth = torch.zeros_like(read)
        truth[:, 0] = 1.0
        counts = torch.ones_like(read)
        counts[:, 1:] = ~has(batch, drawn, len(network.targets))
        loss = sum(
            F.binary_cross_entropy_with_logits(logits + network.bias, truth, counts)
            for logits in (factorised, factorised + read)
        )
        own = F.embedding(batch.items, network.targets)
        return loss + self.config.regularization * own.square().sum(dim=1).mean()

    def metric(self) -> float | None:
        if self.validation is None:
            return None
        fitted = Fitted(_tensors(self.network), ())
        encoder = PooledEncoder.of(fitted.tensors, self.config.shrinkage)
        return self.validation.ndcg(encoder, fitted.item_vectors)


@dataclass(frozen=True, slots=True, eq=False)
class _NeuralCfScorer:
    """The network; its first layer is a sum, of which each item's part is made once."""

    network: _NeuMf
    shrinkage: float
    of_users: Tensor
    """(size, size): what the first layer makes of the vector of a user."""
    of_items: Tensor
    """(items, size): what it makes of each item."""

    @classmethod
    def of(cls, network: _NeuMf, shrinkage: float) -> _NeuralCfScorer:
        of_users, of_items = network.first.weight.chunk(2, dim=1)
        return cls(network, shrinkage, of_users, network.read_targets @ of_items.mT)

    def read(self, histories: Histories) -> NDArray[np.float32]:
        with torch.inference_mode():
            pooled = PooledEncoder(self.network.read_sources, self.shrinkage).encode(histories)
            read = F.linear(torch.from_numpy(pooled), self.of_users, self.network.first.bias)
            readers: NDArray[np.float32] = read.numpy()
        return readers

    def gains(
        self, readers: NDArray[np.float32], candidates: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        network = self.network
        items = torch.from_numpy(candidates.astype(np.int64))
        is_learned = items < len(self.of_items)
        with torch.inference_mode():
            known = F.embedding(items.where(is_learned, 0), self.of_items)
            hidden = torch.relu(torch.from_numpy(readers)[:, None] + known)
            logits = network.last(torch.relu(network.second(hidden))).squeeze(-1) + network.bias
            gains: NDArray[np.float32] = logits.masked_fill(~is_learned, torch.nan).numpy()
        return gains
