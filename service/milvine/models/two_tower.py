"""Two towers: one network for histories, one for items, and their inner product.

Covington, Adams and Sargin 2016, "Deep neural networks for YouTube recommendations", section 3:
the user's tower pools the vectors of the history's items, weighed by how much the user had to do
with them, and puts a network on top; an event is predicted by the others of its history. Yi et al.
2019, "Sampling-bias-corrected neural modeling for large corpus item recommendations", section 3:
the item's tower adds what the item is known by to a vector of its own, and an event stands against
the items of the batch's other events, corrected for how often those occur.

Declared fields of items and users, and texts that describe them, are read by both towers. What is
new has these alone: an item
without interactions has the vector that its fields give, and so has a user without a history. As in
Volkovs, Yu and Poutanen 2017, "DropoutNet: addressing cold start in recommender systems", section
4.1, training leaves out what an item or a user has beside the fields now and then, so that the
fields learn to stand alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from milvine.domain.catalog import Catalog, Field
from milvine.domain.entity import Side
from milvine.domain.model import Setting
from milvine.models import config as settings_of
from milvine.models.base import (
    ITEM_VECTORS,
    Dataset,
    Encoder,
    Feedback,
    Fitted,
    Histories,
    ItemEncoder,
    Run,
    Tensors,
)
from milvine.models.batches import Batch, Negatives, Users, item_counts
from milvine.models.config import flag, names, real, whole
from milvine.models.described import FIELDS, TEXTS, Described
from milvine.models.feature_tower import Rows
from milvine.models.fields import ALL, Encoding, chosen
from milvine.models.loop import learn
from milvine.models.modules import stored
from milvine.models.pooling import SOURCES
from milvine.models.spectral import start
from milvine.models.steps import Schedule
from milvine.models.texts import FindReader
from milvine.models.tower_encoders import NewItems, Pool, Reading, TowerEncoder
from milvine.models.towers import Towers
from milvine.models.validation import Validation, part

_PATH = "config.two_tower"
_NEW_ITEMS = "new_items"
"""The tensor (1 + d,) of how new items are made of what features say."""
_SMALLEST_SHARE = 1e-9
"""Keeps the logarithm of a share finite."""


@dataclass(frozen=True, slots=True)
class TwoTowerConfig(Schedule):
    """Settings of two towers."""

    epochs: int = whole(15, 1, 1_000)
    """The passes over the data, at most."""
    learning_rate: float = real(0.001, 0, excludes_low=True)
    """The length of the first steps; it falls to a twentieth along a line."""
    events_per_user: int = whole(4, 1, 1_024)
    """The events of a user, drawn anew in each pass, that the others are to predict."""
    strength_scale: float = real(0.0, 0)
    """How much strength weighs in a history: 1 + strength_scale * log(1 + strength)."""
    hard_negative_count: int = whole(0, 0, 1_024)
    """The best-scoring wrong items of the batch that an event stands against once more."""
    shrinkage: float = real(10.0, 0)
    """The events that are added to each user and item, so that rare ones weigh less."""
    item_fields: str = names(ALL)
    """The item fields to learn from, with commas between them; `*` for all but texts to embed."""
    user_fields: str = names(ALL)
    """The user fields to learn from, in the same way."""
    field_dropout: float = real(0.1, 0, 0.95)
    """How often an item or a history is left out, so that the fields stand alone."""
    text: bool = flag(default=True)
    """Whether texts to embed are learned from."""

    @property
    def pool(self) -> Pool:
        """How users are made of histories."""
        return Pool(self.strength_scale, self.shrinkage)


@dataclass(frozen=True, slots=True)
class TwoTower:
    """The family `two_tower`."""

    name: str = "two_tower"
    learns_from: Feedback = Feedback.IMPLICIT
    is_parallel: bool = True

    def config(self, settings: Mapping[str, Setting]) -> TwoTowerConfig:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""
        return settings_of.read(TwoTowerConfig, self.name, settings)

    def fit(self, dataset: Dataset, config: TwoTowerConfig, run: Run) -> Fitted:
        """Learn both towers."""
        histories, validation = part(dataset.histories, config.patience, config.seed)
        item_count, size, seed = len(dataset.items), config.embedding_size, config.seed
        begin = start(histories, item_count, size, shrinkage=config.shrinkage, seed=seed, run=run)
        told = Described.of(dataset, histories, begin, run, reads_texts=config.text)
        rng = torch.Generator().manual_seed(seed)
        network = Towers(begin, told.items, told.users, rng).to(run.device)
        users = Users(histories, run.device)
        rows, user_rows = Rows.of(told.items, run.device), Rows.of(told.users, run.device)
        counts = item_counts(histories, item_count, run.device)
        network.begin_users(user_rows, users.take(users.all))
        network.begin_items(rows, counts + config.shrinkage)
        learner = _Learner(
            network,
            config,
            users,
            rows,
            user_rows,
            Negatives(_shares(histories, item_count, config).to(run.device), item_count),
            told.reread(validation, run.cancelled),
            told.tensors(dataset.encodings),
        )
        learned = learn(learner, config, run)
        return Fitted(learner.tensors(), *learned)

    def fields(self, config: TwoTowerConfig, catalog: Catalog) -> Mapping[Side, tuple[Field, ...]]:
        """The fields that it is to learn from; raises InvalidArgument for one not declared."""
        return {
            side: (
                *chosen(declared, names, f"{_PATH}.{FIELDS[side]}"),
                *(field for field in declared if config.text and field.embed_text),
            )
            for side, declared, names in (
                (Side.ITEM, catalog.item_fields, config.item_fields),
                (Side.USER, catalog.user_fields, config.user_fields),
            )
        }

    def encodings(self, tensors: Tensors, find: FindReader) -> Mapping[Side, Encoding]:
        """How the fields become features."""
        return {
            side: Encoding.unpacked(tensors[name], find)
            for side, name in FIELDS.items()
            if name in tensors
        }

    def encoder(self, config: TwoTowerConfig, tensors: Tensors) -> Encoder:
        """The encoder: the user's tower."""
        reads = FIELDS[Side.USER] in tensors
        fields = Reading.of(tensors, "user_features", TEXTS[Side.USER]) if reads else None
        return TowerEncoder.of(tensors, fields, config.pool)

    def item_encoder(
        self, config: TwoTowerConfig, tensors: Tensors, find: FindReader
    ) -> ItemEncoder | None:
        """The item's tower, for items that are known by their fields alone."""
        del config
        encoding = self.encodings(tensors, find).get(Side.ITEM)
        if encoding is None:
            return None
        reading = Reading.of(tensors, "target_features", TEXTS[Side.ITEM])
        return NewItems(encoding, reading, tensors[_NEW_ITEMS])


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    network: Towers
    config: TwoTowerConfig
    users: Users
    features: Rows
    of_users: Rows
    negatives: Negatives
    validation: Validation | None
    kept: Tensors
    """What an artifact keeps beside the network."""

    def batches(self, rng: torch.Generator) -> Iterator[Batch]:
        return self.users.batches(self.config.batch_size, rng)

    def examples(self, batch: Batch) -> Tensor:
        return batch.lengths.clamp(max=self.config.events_per_user).sum()

    def loss(self, batch: Batch, rng: torch.Generator) -> Tensor:
        sources, targets = self.network.items(self.features, self._kept_items(rng))
        # An event stands against the items of the whole batch, also where this is a share of it.
        every = _some(batch.whole, self.config.events_per_user, rng)
        events, kept = self._own(every, batch, rng)
        users = self.network.top()(self._users(batch, events, sources, kept))
        wanted = F.embedding(batch.items[events], targets)
        against = torch.unique(batch.whole.items[every])
        drawn = self.negatives.among(against, len(every), batch)
        scores = users @ F.embedding(drawn.items, targets).mT
        never = drawn.own(len(batch))[batch.rows[events]]
        others = (scores.float() - drawn.log_expected).masked_fill(never, -torch.inf)
        positives = torch.einsum("ed,ed->e", users, wanted)
        loss = F.softplus(others.logsumexp(dim=1) - positives).mean()
        if hard := min(self.config.hard_negative_count, others.shape[1]):
            hardest = scores.float().masked_fill(never, -torch.inf).topk(hard, dim=1).values
            loss = loss + F.softplus(hardest.logsumexp(dim=1) - positives).mean()
        return loss + self.config.regularization * wanted.square().sum(dim=1).mean()

    def _kept_items(self, rng: torch.Generator) -> Tensor | None:
        """(items, 1): the items that have vectors of their own in this step; None: all."""
        share = self.config.field_dropout
        if not self.network.reads_items or not share:
            return None
        return _kept(len(self.network.targets), share, rng)

    def _own(
        self, every: Tensor, batch: Batch, rng: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Those of the whole batch's events (n,) that a share has, by their places in it.

        And (own, 1): which of these have a history beside their fields; None: all.
        """
        events = every - batch.first_event
        is_own = (events >= 0) & (events < len(batch.items))
        share = self.config.field_dropout
        if not self.network.reads_users or not share:
            return events[is_own], None
        return events[is_own], _kept(len(every), share, rng)[is_own]

    def _users(self, batch: Batch, events: Tensor, sources: Tensor, kept: Tensor | None) -> Tensor:
        """(n, d): the users of some events (n,) without these, before the network on top."""
        sums, totals = self._without(batch, events, sources)
        if not self.network.reads_users:
            return self.config.pool.pooled(sums, totals, None)
        if kept is not None:
            sums, totals = sums * kept, totals * kept[:, 0]
        said: Tensor = self.network.user_features(self.of_users.take(batch.users))
        return self.config.pool.pooled(sums, totals, said[batch.rows[events]])

    def _without(self, batch: Batch, events: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        """The weighed sums (n, d) of the histories of some events (n,) without these, and (n,)."""
        weights = self.config.pool.weights(batch)
        sums = F.embedding_bag(
            batch.items, sources, batch.starts, mode="sum", per_sample_weights=weights
        )
        totals = torch.zeros_like(sums[:, 0]).index_add(0, batch.rows, weights)
        rows, own = batch.rows[events], weights[events]
        rest = sums[rows] - own[:, None] * F.embedding(batch.items[events], sources)
        return rest, totals[rows] - own

    def tensors(self) -> Tensors:
        """What an artifact keeps."""
        with torch.no_grad():
            sources, targets = self.network.items(self.features)
            tensors = {**self.kept, **stored(self.network)}
            if self.network.reads_items:
                tensors[_NEW_ITEMS] = self.network.new_items(self.features).cpu().numpy()
        del tensors["network.sources"], tensors["network.targets"]
        vectors = {ITEM_VECTORS: targets.detach(), SOURCES: sources.detach()}
        return {**tensors, **{n: table.cpu().numpy() for n, table in vectors.items()}}

    def metric(self) -> float | None:
        if self.validation is None:
            return None
        fitted = Fitted(self.tensors(), ())
        encoder = TwoTower().encoder(self.config, fitted.tensors)
        return self.validation.ndcg(encoder, fitted.item_vectors)


def _kept(count: int, share: float, rng: torch.Generator) -> Tensor:
    """(count, 1): 1 but for a share of 0, drawn at random."""
    return (torch.rand((count, 1), generator=rng, device=rng.device) >= share).float()


def _some(batch: Batch, count: int, rng: torch.Generator) -> Tensor:
    """(n,): up to `count` events of each user, drawn at random."""
    device = batch.items.device
    keys = torch.rand(len(batch.items), generator=rng, device=device, dtype=torch.float64)
    order = torch.argsort(batch.rows + keys)
    places = torch.arange(len(order), device=device) - batch.starts[batch.rows]
    return order[places < count]


def _shares(histories: Histories, item_count: int, config: TwoTowerConfig) -> Tensor:
    """(items,) float32: how the events that `_some` draws are spread over the items."""
    drawn = np.minimum(config.events_per_user / histories.lengths.clip(min=1), 1.0)
    totals = np.bincount(histories.items, drawn[histories.users], minlength=item_count)
    return torch.from_numpy(totals / totals.sum()).float().clamp(min=_SMALLEST_SHARE)
