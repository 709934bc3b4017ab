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
    AFTER = "AFTER"
    GIVEN = "GIVEN"


@dataclass(frozen=True, slots=True)
class Holdout:
    """How interactions are held out of training to measure a model."""

    method: HoldoutMethod = HoldoutMethod.LATEST
    fraction: float | None = None
    """The share of each user's items that LATEST and RANDOM take, over 0 and under 1; None: one
    item of each user."""
    cutoffs: tuple[int, ...] = (10, 20)
    seed: int = 0
    start_time: datetime | None = None
    """When what AFTER takes begins."""
    event_types: tuple[str, ...] = ()
    """What GIVEN takes."""

    def read(self, event_types: tuple[str, ...]) -> tuple[str, ...]:
        """The event types to read in order to learn from some, empty for all, and to measure."""
        return tuple(dict.fromkeys((*event_types, *self.event_types))) if event_types else ()


@dataclass(frozen=True, slots=True)
class RankingMetrics:
    """Metrics of ranked lists of `cutoff` items, means over users or over all that is listed."""

    cutoff: int
    recall: float
    ndcg: float
    mrr: float
    hit_rate: float
    coverage: float
    """The share of all items that stand in at least one list."""
    novelty: float | None = None
    """The mean self-information of what is listed, in bits; None where it was not measured."""


class Segment(StrEnum):
    """Parts of what was held out, by what was not."""

    COLD_USERS = "COLD_USERS"
    COLD_ITEMS = "COLD_ITEMS"
    HEAD_ITEMS = "HEAD_ITEMS"
    TAIL_ITEMS = "TAIL_ITEMS"


@dataclass(frozen=True, slots=True)
class SegmentEvaluation:
    """How well lists found a part of what was held out."""

    segment: Segment
    user_count: int
    held_out_count: int
    """The pairs of a user and an item that it has."""
    model: tuple[RankingMetrics, ...]
    popularity: tuple[RankingMetrics, ...]


@dataclass(frozen=True, slots=True)
class LiveEvaluation:
    """How well the live index of a release found what was held out."""

    release_id: str
    index_recall: float
    """The share of the exact best items that it found."""
    metrics: tuple[RankingMetrics, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well lists found what was held out, beside lists of the most popular items."""

    holdout: Holdout
    user_count: int
    model: tuple[RankingMetrics, ...]
    popularity: tuple[RankingMetrics, ...]
    segments: tuple[SegmentEvaluation, ...] = ()
    """Those that have anything."""
    held_out_count: int = 0
    item_count: int = 0
    """How many items there were to rank."""
    held_out_fingerprint: str = ""
    """A digest of the held-out pairs."""
    fitted_anew: bool = True
    """Whether the settings were fitted on what was not held out; else the model was measured."""
    live: LiveEvaluation | None = None


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
    holdout_epochs: tuple[EpochReport, ...] = ()
    """Those of the fit that was measured, without what was held out."""
    evaluation: Evaluation | None = None
    event_types: tuple[str, ...] = ()
    """The event types it learned from; empty for all."""
    divergence: str = ""
    """How its training diverged; it has the best weights until there. Empty where it ended well."""
    display_name: str = ""
    create_time: datetime | None = None
    content: ContentSource | None = None
    """Where items without interactions have their vectors from; None: they have none."""
    latest_event_time: datetime | None = None
    """When the latest interaction was that it learned from; None: an earlier version's model."""

    def has_learned(self, holdout: Holdout) -> bool:
        """Whether it may have learned from what a holdout takes."""
        match holdout.method:
            case HoldoutMethod.AFTER if self.latest_event_time and holdout.start_time:
                return self.latest_event_time >= holdout.start_time
            case HoldoutMethod.GIVEN if self.event_types:
                return not set(self.event_types).isdisjoint(holdout.event_types)
            case _:
                return True
