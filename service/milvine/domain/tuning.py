"""Searches for the settings of a family that do best on what is held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from milvine.domain.model import Holdout, ModelConfig, Setting


class TuneMetric(StrEnum):
    """What a search makes as great as it can: a field of `RankingMetrics`."""

    NDCG = "ndcg"
    RECALL = "recall"
    MRR = "mrr"
    HIT_RATE = "hit_rate"


@dataclass(frozen=True, slots=True)
class Numbers:
    """All values of a setting from `low` to `high`, both included."""

    low: float
    high: float
    is_log: bool = False
    """Whether ratios count, not differences: 1 to 10 is tried as often as 10 to 100."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values of a setting."""

    values: tuple[float, ...]


Searched: TypeAlias = Numbers | Choices


@dataclass(frozen=True, slots=True)
class TunePlan:
    """What is searched for, and how."""

    config: ModelConfig
    """The family and the settings that are fixed; others take their defaults."""
    space: Mapping[str, Searched]
    """Where the other settings are looked for, by name."""
    trial_count: int
    metric: TuneMetric
    cutoff: int
    """The length of the lists that the metric measures, one of the holdout's."""
    holdout: Holdout
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings that were tried."""

    number: int
    """From 1."""
    settings: Mapping[str, Setting]
    """Those that are searched for."""
    seconds: float
    value: float | None = None
    """The metric; None where the trial failed."""
    failure: str = ""
    """Why it failed, in words."""


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the greatest metric, the first among equals; None where all failed."""
    measured = [trial for trial in trials if trial.value is not None]
    return max(measured, key=lambda trial: trial.value or 0.0, default=None)
