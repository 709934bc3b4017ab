"""Models: what a training gives, and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

Setting: TypeAlias = int | float | str | bool
"""A value of a family's setting."""


class HoldoutMethod(StrEnum):
    """The way to choose the interactions that measure a model."""

    LATEST = "LATEST"
    RANDOM = "RANDOM"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Holdout:
    """How interactions are held out of training to measure a model."""

    method: HoldoutMethod = HoldoutMethod.LATEST
    fraction: float | None = None
    """The share of each user's items, over 0 and under 1; None: one item of each user."""
    cutoffs: tuple[int, ...] = (10, 20)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RankingMetrics:
    """Metrics of ranked lists of `cutoff` items, means over users but for `coverage`."""

    cutoff: int
    recall: float
    ndcg: float
    mrr: float
    hit_rate: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well lists found what was held out, beside lists of the most popular items."""

    holdout: Holdout
    user_count: int
    model: tuple[RankingMetrics, ...]
    popularity: tuple[RankingMetrics, ...]


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What happened in one pass over the data."""

    epoch: int
    epoch_count: int
    loss: float
    seconds: float
    metric: float | None = None
    """NDCG@20 on what the fit held out for itself; None where it holds out nothing."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A family of models by name and its settings, defaults filled in."""

    family: str
    settings: Mapping[str, Setting]


@dataclass(frozen=True, slots=True)
class ContentSource:
    """What a model's map from the content of items to their vectors was learned from."""

    text_fields: tuple[str, ...]
    """The names of the fields whose texts it reads."""
    text_encoder: str
    """The name of the encoder of texts."""
    fingerprint: str
    """What tells that encoder's vectors from others."""
    item_count: int
    """How many items it learned from."""
    explained: float
    """The share of the variance of items' vectors that their content explains, each item by a map
    that was fitted without it; below 0 where content says nothing."""


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model; its weights are the artifact of the same id."""

    id: str
    catalog_id: str
    config: ModelConfig
    user_count: int
    item_count: int
    pair_count: int
    dimension: int
    data_fingerprint: str
    train_seconds: float
    epochs: tuple[EpochReport, ...] = ()
    evaluation: Evaluation | None = None
    event_types: tuple[str, ...] = ()
    """The event types it learned from; empty for all."""
    display_name: str = ""
    create_time: datetime | None = None
    content: ContentSource | None = None
    """Where items without interactions have their vectors from; None: they have none."""
