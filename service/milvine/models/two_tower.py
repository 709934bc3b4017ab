"""Two towers: one network for histories, one for items, and their inner product.

Covington, Adams and Sargin 2016, "Deep neural networks for YouTube recommendations", section 3:
the user's tower pools the vectors of the history's items, weighed by how much the user had to do
with them, and puts a network on top; an event is predicted by the others of its history. Yi et al.
2019, "Sampling-bias-corrected neural modeling for large corpus item recommendations", section 3:
the item's tower adds what the item is known by to a vector of its own, and an event stands against
the items of the batch's other events, corrected for how often those occur.

Declared fields of items and users are read by both towers. What is new has fields alone: an item
without interactions has the vector that its fields give, and so has a user without a history. As in
Volkovs, Yu and Poutanen 2017, "DropoutNet: addressing cold start in recommender systems", section
4.1, training leaves out what an item or a user has beside the fields now and then, so that the
fields learn to stand alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
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
    Fields,
    Fitted,
    Histories,
    ItemEncoder,
    Run,
    Tensors,
)
from milvine.models.batches import Batch, Negatives, Users, batch_of, item_counts
from milvine.models.config import names, real, whole
from milvine.models.feature_tower import FeatureTower, Rows
from milvine.models.features import Features
from milvine.models.fields import ALL, Encoding, chosen
from milvine.models.loop import learn
from milvine.models.modules import load, stored
from milvine.models.pooling import SOURCES
from milvine.models.spectral import start
from milvine.models.steps import Schedule
from milvine.models.towers import Top, Towers
from milvine.models.validation import Validation, part

_PATH = "config.two_tower"
_FIELDS = {Side.ITEM: "item_fields", Side.USER: "user_fields"}
"""The tensors that hold how fields become features."""
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
        features = dataset.item_features or Features.none(item_count)
        of_users = histories.features or Features.none(len(histories))
        rng = torch.Generator().manual_seed(seed)
        network = Towers(begin, features, of_users, rng).to(run.device)
        users = Users(histories, run.device)
        rows, user_rows = Rows.of(features, run.device), Rows.of(of_users, run.device)
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
            validation,
        )
        learned = learn(learner, config, run)
        packed = {_FIELDS[side]: code.packed() for side, code in dataset.encodings.items()}
        return Fitted({**learner.tensors(), **packed}, *learned)

    def fields(self, config: TwoTowerConfig, catalog: Catalog) -> Mapping[Side, tuple[Field, ...]]:
        """The fields that it is to learn from; raises InvalidArgument for one not declared."""
        return {
            Side.ITEM: chosen(catalog.item_fields, config.item_fields, f"{_PATH}.item_fields"),
            Side.USER: chosen(catalog.user_fields, config.user_fields, f"{_PATH}.user_fields"),
        }

    def encodings(self, tensors: Tensors) -> Mapping[Side, Encoding]:
        """How the fields become features."""
        return {
            side: Encoding.unpacked(tensors[name])
            for side, name in _FIELDS.items()
            if name in tensors
        }

    def encoder(self, config: TwoTowerConfig, tensors: Tensors) -> Encoder:
        """The encoder: the user's tower."""
        names = ("network.first.weight", "network.first.bias", "network.second.weight")
        first, bias, second = (_tensor(tensors[name]) for name in names)
        tower = _tower(tensors, "user_features") if _FIELDS[Side.USER] in tensors else None
        return _TwoTowerEncoder(_tensor(tensors[SOURCES]), Top(first, bias, second), tower, config)

    def item_encoder(self, config: TwoTowerConfig, tensors: Tensors) -> ItemEncoder | None:
        """The item's tower, for items that are known by their fields alone."""
        del config
        encoding = self.encodings(tensors).get(Side.ITEM)
        return _NewItems(encoding, _tower(tensors, "target_features")) if encoding else None


def _tower(tensors: Tensors, name: str) -> FeatureTower:
    """A feature tower with the weights that an artifact has under that name."""
    own = f"network.{name}."
    weights = {"network." + k.removeprefix(own): v for k, v in tensors.items() if own in k}
    token_count, size = weights["network.tokens"].shape
    numbers = weights.get("network.numbers.weight")
    number_count = 0 if numbers is None else numbers.shape[1]
    tower = FeatureTower(token_count - 1, number_count, size, torch.Generator().manual_seed(0))
    load(tower, weights)
    return tower


@dataclass(frozen=True, slots=True, eq=False)
class _NewItems:
    encoding: Encoding
    tower: FeatureTower

    def encode(self, items: Sequence[Fields]) -> NDArray[np.float32]:
        features = self.encoding.of(items)
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.tower(Rows.of(features, "cpu")).numpy()
        return np.where(features.is_known[:, None], vectors, np.float32(np.nan))


def _weights(batch: Batch, config: TwoTowerConfig) -> Tensor:
    """(events,): how much each event weighs in its history."""
    return 1.0 + config.strength_scale * batch.strengths.clamp(min=0.0).log1p()


@dataclass(frozen=True, slots=True, eq=False)
class _Learner:
    network: Towers
    config: TwoTowerConfig
    users: Users
    features: Rows
    of_users: Rows
    negatives: Negatives
    validation: Validation | None

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
            return _pooled(sums, totals, None, self.config)
        if kept is not None:
            sums, totals = sums * kept, totals * kept[:, 0]
        said: Tensor = self.network.user_features(self.of_users.take(batch.users))
        return _pooled(sums, totals, said[batch.rows[events]], self.config)

    def _without(self, batch: Batch, events: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        """The weighed sums (n, d) of the histories of some events (n,) without these, and (n,)."""
        weights = _weights(batch, self.config)
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
        tensors = dict(stored(self.network))
        del tensors["network.sources"], tensors["network.targets"]
        vectors = {ITEM_VECTORS: targets.detach(), SOURCES: sources.detach()}
        return {**tensors, **{name: table.cpu().numpy() for name, table in vectors.items()}}

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


def _pooled(sums: Tensor, totals: Tensor, said: Tensor | None, config: TwoTowerConfig) -> Tensor:
    """(n, d): users by the sums of their histories, their weights (n,), and what fields say.

    Fields say of what kind the events of such users are, and stand for as many of them as
    `shrinkage` where there are none; what a user did soon counts more.
    """
    pooled: Tensor = sums * (totals + config.shrinkage).clamp(min=1.0).rsqrt()[:, None]
    if said is None:
        return pooled
    events = max(config.shrinkage, 1.0)
    weights: Tensor = events**1.5 / (totals + events)
    return pooled + said * weights[:, None]


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.require(array, np.float32, "W"))


@dataclass(frozen=True, slots=True, eq=False)
class _TwoTowerEncoder:
    sources: Tensor
    top: Top
    fields: FeatureTower | None
    """Reads the fields of users, where the model learned from any."""
    config: TwoTowerConfig

    @property
    def dimension(self) -> int:
        return self.sources.shape[1]

    @property
    def taste_dimension(self) -> int:
        return self.dimension

    def encode(self, histories: Histories) -> NDArray[np.float32]:
        batch = batch_of(histories)
        weights = _weights(batch, self.config)
        with torch.inference_mode():
            sums = F.embedding_bag(
                batch.items, self.sources, batch.starts, mode="sum", per_sample_weights=weights
            )
            totals = torch.zeros(len(batch)).index_add(0, batch.rows, weights)
            said = None
            if self.fields is not None and histories.features is not None:
                said = self.fields(Rows.of(histories.features, "cpu"))
            vectors = self.top(_pooled(sums, totals, said, self.config))
        return vectors.numpy()
