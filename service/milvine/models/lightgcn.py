"""Light graph convolution: item vectors smoothed over who has what.

He et al. 2020, "LightGCN", section 3.1: with A the matrix of users and items scaled by the roots
of their degrees, a layer takes vectors to `A' A` times them, two steps through the graph, and an
item's vector is the mean over the layers. Users have no vectors of their own to begin with (Wu et
al. 2022, "Inductive modeling with templates", section 3.2): a user's vector is what one step from
the items gives, so it follows from the history. The loss is that of `softmax_mf`, under which
graph convolution needs fewer passes than under the pairwise loss of the paper (Wu et al. 2022,
"On the effectiveness of sampled softmax loss for item recommendation", section 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from milvine.domain.model import Setting
from milvine.models import config as settings_of
from milvine.models.base import ITEM_VECTORS, Dataset, Encoder, Feedback, Fitted, Run, Tensors
from milvine.models.batches import Batch, Negatives, Users
from milvine.models.config import real, whole
from milvine.models.graph import Graph
from milvine.models.loop import learn
from milvine.models.pooling import SOURCES, Pooled, PooledEncoder, softmax_loss
from milvine.models.spectral import start
from milvine.models.steps import Schedule
from milvine.models.validation import Validation, part


@dataclass(frozen=True, slots=True)
class LightGcnConfig(Schedule):
    """Settings of light graph convolution."""

    epochs: int = whole(8, 1, 1_000)
    """The passes over the data, at most."""
    batch_size: int = whole(65_536, 1, 2**20)
    """About how many events a step learns from; each step goes through the whole graph."""
    learning_rate: float = real(0.002, 0, excludes_low=True)
    """The length of the first steps; it falls to a twentieth along a line."""
    layers: int = whole(2, 1, 16)
    """How often vectors go from items to users and back."""
    popularity_exponent: float = real(0.35, 0, 1)
    """The power of its frequency by which an item's score is raised."""
    negative_count: int = whole(1_024, 1, 65_536)
    """The negatives that the users of a batch share."""
    negative_exponent: float = real(0.5, 0, 1)
    """The power of its frequency by which an item is drawn as a negative."""
    shrinkage: float = real(10.0, 0)
    """The events that are added to each user and item, so that rare ones weigh less."""


@dataclass(frozen=True, slots=True)
class LightGcn:
    """The family `lightgcn`."""

    name: str = "lightgcn"
    learns_from: Feedback = Feedback.IMPLICIT
    is_parallel: bool = True

    def config(self, settings: Mapping[str, Setting]) -> LightGcnConfig:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""
        return settings_of.read(LightGcnConfig, self.name, settings)

    def fit(self, dataset: Dataset, config: LightGcnConfig, run: Run) -> Fitted:
        """Learn item vectors and smooth them."""
        histories, validation = part(dataset.histories, config.patience, config.seed)
        item_count, shrinkage = len(dataset.items), config.shrinkage
        graph = Graph.of(histories, item_count, shrinkage=shrinkage, device=run.device)
        size, seed = config.embedding_size, config.seed
        begin = start(histories, item_count, size, shrinkage=shrinkage, seed=seed, run=run)
        network = _Convolution(begin.vectors, graph, config)
        counts = graph.item_counts.long()
        negatives = Negatives.by_count(counts, config.negative_exponent, config.negative_count)
        users = Users(histories, run.device)
        learned = learn(_Learner(network, config, users, negatives, validation), config, run)
        return Fitted(network.tensors(), *learned)

    def encoder(self, config: LightGcnConfig, tensors: Tensors) -> Encoder:
        """The encoder: one step through the graph, from a history to its user."""
        return PooledEncoder.of(tensors, config.shrinkage)


class _Convolution(nn.Module):
    """Item vectors, and what the graph makes of them."""

    def __init__(self, vectors: Tensor, graph: Graph, config: LightGcnConfig) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)
        self._graph = graph
        self._layers = config.layers
        frequency = (graph.item_counts + config.shrinkage)[:, None]
        # Scaled to 1 on average, which makes the scores as long as the softmax needs.
        self._source_scale = (frequency / frequency.mean()) ** -0.5
        self._target_scale = (frequency / frequency.mean()) ** config.popularity_exponent

    def forward(self) -> tuple[Tensor, Tensor]:
        """What items add to their users, and what users are compared with: (items, d) each."""
        layer: Tensor = self.vectors
        total = layer
        for _ in range(self._layers):
            layer = self._graph.propagate(layer)
            total = total + layer
        smooth = total / (self._layers + 1)
        return smooth * self._source_scale, smooth * self._target_scale

    def tensors(self) -> Tensors:
        """What an artifact keeps."""
        with torch.no_grad():
            sources, targets = self()
        return {ITEM_VECTORS: targets.cpu().numpy(), SOURCES: sources.cpu().numpy()}


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    network: _Convolution
    config: LightGcnConfig
    users: Users
    negatives: Negatives
    validation: Validation | None

    def batches(self, rng: torch.Generator) -> Iterator[Batch]:
        return self.users.batches(self.config.batch_size, rng)

    def examples(self, batch: Batch) -> int:
        return len(batch.items)

    def loss(self, batch: Batch, rng: torch.Generator) -> Tensor:
        sources, targets = self.network()
        pooled = Pooled.of(batch, sources, self.config.shrinkage)
        loss = softmax_loss(pooled, batch, targets, self.negatives.draw(batch, rng))
        own = F.embedding(batch.items, self.network.vectors)
        return loss + self.config.regularization * own.square().sum(dim=1).mean()

    def metric(self) -> float | None:
        if self.validation is None:
            return None
        fitted = Fitted(self.network.tensors(), ())
        encoder = PooledEncoder.of(fitted.tensors, self.config.shrinkage)
        return self.validation.ndcg(encoder, fitted.item_vectors)
