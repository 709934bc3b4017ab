"""Self-attention over the order of a history: the vector of a user is of the next item.

Kang and McAuley 2018, "Self-attentive sequential recommendation", section 3: the latest items and
their places go through blocks of causal self-attention, and what stands at each place is compared
with the items that may come next. The blocks normalise before, not after (Xiong et al. 2020, "On
layer normalization in the transformer architecture", section 3). The loss at each place is a
softmax of the next item against many others, under which this network beats later ones
(Klenitskiy and Vasilev 2023, "Turning dross into gold loss", section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
from torch import Tensor

from milvine.domain.model import Setting
from milvine.models import config as settings_of
from milvine.models.attention import Attention
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
from milvine.models.batches import Batch, Negatives, Users, batch_of, item_counts
from milvine.models.config import real, whole
from milvine.models.loop import learn
from milvine.models.modules import dropped, load, stored
from milvine.models.steps import Schedule
from milvine.models.validation import Validation, part

_ENCODED_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class SasRecConfig(Schedule):
    """Settings of self-attention over histories."""

    epochs: int = whole(50, 1, 1_000)
    """The passes over the data, at most."""
    batch_size: int = whole(1_024, 1, 2**20)
    """About how many events a step learns from; a user's stay together."""
    learning_rate: float = real(0.002, 0, excludes_low=True)
    """The length of the first steps; it falls to a twentieth along a line."""
    history_length: int = whole(50, 1, 1_000)
    """The latest events of a history that count."""
    blocks: int = whole(2, 1, 16)
    """How many times attention is paid."""
    heads: int = whole(2, 1, 64)
    """The parts of a vector that pay attention each for itself; it divides the dimensions."""
    dropout: float = real(0.3, 0, 0.95)
    """The share of numbers that a training step leaves out."""
    negative_count: int = whole(512, 1, 65_536)
    """The negatives that the users of a batch share."""
    negative_exponent: float = real(0.5, 0, 1)
    """The power of its frequency by which an item is drawn as a negative."""


@dataclass(frozen=True, slots=True)
class SasRec:
    """The family `sasrec`."""

    name: str = "sasrec"
    learns_from: Feedback = Feedback.ORDERED
    is_parallel: bool = True

    def config(self, settings: Mapping[str, Setting]) -> SasRecConfig:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""
        config = settings_of.read(SasRecConfig, self.name, settings)
        settings_of.must_divide(self.name, "heads", config.heads, config.embedding_size)
        return config

    def fit(self, dataset: Dataset, config: SasRecConfig, run: Run) -> Fitted:
        """Learn item vectors and the network that reads histories."""
        histories, validation = part(dataset.histories, config.patience, config.seed, latest=True)
        item_count = len(dataset.items)
        network = _network(item_count, config).to(run.device)
        counts = item_counts(histories, item_count, run.device)
        negatives = Negatives.by_count(counts, config.negative_exponent, config.negative_count)
        users = Users(histories, run.device)
        learned = learn(_Learner(network, config, users, negatives, validation), config, run)
        return Fitted(_tensors(network), *learned)

    def encoder(self, config: SasRecConfig, tensors: Tensors) -> Encoder:
        """The encoder: what the network expects after the last event."""
        items = tensors[ITEM_VECTORS]
        network = _network(len(items), config)
        load(network, {**tensors, "network.items": items})
        return _SasRecEncoder(network, config)


def _network(item_count: int, config: SasRecConfig) -> Attention:
    rng = torch.Generator().manual_seed(config.seed)
    return Attention(
        item_count,
        config.embedding_size,
        length=config.history_length,
        blocks=config.blocks,
        heads=config.heads,
        rng=rng,
    )


def _tensors(network: Attention) -> Tensors:
    tensors = dict(stored(network))
    return {ITEM_VECTORS: tensors.pop("network.items"), **tensors}


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    network: Attention
    config: SasRecConfig
    users: Users
    negatives: Negatives
    validation: Validation | None

    def batches(self, rng: torch.Generator) -> Iterator[Batch]:
        """Users of like length together, so that little is padded."""
        return self.users.alike(self.config.batch_size, rng, longest=self.config.history_length + 1)

    def examples(self, batch: Batch) -> Tensor:
        return (batch.lengths.clamp(max=self.config.history_length + 1) - 1).sum()

    def loss(self, batch: Batch, rng: torch.Generator) -> Tensor:
        places, is_event = _window(batch, self.config.history_length + 1)
        items = batch.items[places]
        has_next = is_event[:, 1:]
        drop = partial(dropped, share=self.config.dropout, batch=batch, rng=rng)
        hidden = self.network(items[:, :-1], drop)[has_next]
        following = F.embedding(items[:, 1:][has_next], self.network.items)
        drawn = self.negatives.draw(batch, rng)
        scores = hidden @ F.embedding(drawn.items, self.network.items).mT
        never = drawn.own(len(batch))[has_next.nonzero()[:, 0]]
        others = (scores.float() - drawn.log_expected).masked_fill(never, -torch.inf)
        positives = torch.einsum("ed,ed->e", hidden, following)
        loss = F.softplus(others.logsumexp(dim=1) - positives).mean()
        return loss + self.config.regularization * following.square().sum(dim=1).mean()

    def metric(self) -> float | None:
        if self.validation is None:
            return None
        fitted = Fitted(_tensors(self.network), ())
        encoder = SasRec().encoder(self.config, fitted.tensors)
        return self.validation.ndcg(encoder, fitted.item_vectors)


def _window(batch: Batch, length: int) -> tuple[Tensor, Tensor]:
    """The latest events of users, first ones first.

    Returns:
        Their places among the events of the batch, (users, longest) int64, and which of these are
        events: the rest is padding at the end. A share is padded as the whole batch.
    """
    taken = batch.lengths.clamp(max=length)
    longest = min(int(batch.whole.lengths.max()), length)
    steps = torch.arange(longest, device=taken.device)
    places = (batch.offsets[1:] - taken)[:, None] + steps
    return places.clamp(max=len(batch.items) - 1), steps < taken[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class _SasRecEncoder:
    network: Attention
    config: SasRecConfig

    @property
    def dimension(self) -> int:
        return self.config.embedding_size

    @property
    def taste_dimension(self) -> int:
        return self.config.embedding_size

    def encode(self, histories: Histories) -> NDArray[np.float32]:
        vectors = np.zeros((len(histories), self.dimension), np.float32)
        lengths = histories.lengths
        order = np.argsort(lengths, kind="stable")
        order = order[np.searchsorted(lengths[order], 0, side="right") :]
        for first in range(0, len(order), _ENCODED_AT_ONCE):
            users = order[first : first + _ENCODED_AT_ONCE]
            vectors[users] = self._expected(batch_of(histories.take(users)))
        return vectors

    def _expected(self, batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode():
            places, is_event = _window(batch, self.config.history_length)
            hidden = self.network(batch.items[places])
            last = is_event.sum(dim=1) - 1
            expected: NDArray[np.float32] = hidden[torch.arange(len(last)), last].numpy()
        return expected
