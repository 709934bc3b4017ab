"""How far long work has come: what its workers say and its watchers read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from milvine.domain.model import EpochReport
from milvine.domain.tuning import Trial


class TrainStage(StrEnum):
    """The steps of a training."""

    READING = "READING"
    FITTING_HOLDOUT = "FITTING_HOLDOUT"
    EVALUATING = "EVALUATING"
    FITTING = "FITTING"
    SAVING = "SAVING"


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """How far a training has come."""

    stage: TrainStage = TrainStage.READING
    progress: float = 0.0
    """The share that is done, 0 to 1."""
    holdout_epochs: tuple[EpochReport, ...] = ()
    """The reports of FITTING_HOLDOUT so far."""
    epochs: tuple[EpochReport, ...] = ()
    """The reports of FITTING so far."""


class EvaluateStage(StrEnum):
    """The steps of an evaluation."""

    READING = "READING"
    FITTING = "FITTING"
    EVALUATING = "EVALUATING"


@dataclass(frozen=True, slots=True)
class EvaluateProgress:
    """How far an evaluation has come."""

    stage: EvaluateStage = EvaluateStage.READING
    progress: float = 0.0
    """The share that is done, 0 to 1."""
    epochs: tuple[EpochReport, ...] = ()
    """The reports of FITTING so far."""


class PublishStage(StrEnum):
    """The steps of a publication."""

    WRITING_ITEMS = "WRITING_ITEMS"
    WRITING_USERS = "WRITING_USERS"
    INDEXING = "INDEXING"
    CHECKING = "CHECKING"
    ACTIVATING = "ACTIVATING"


@dataclass(frozen=True, slots=True)
class PublishProgress:
    """How far a publication has come."""

    stage: PublishStage = PublishStage.WRITING_ITEMS
    progress: float = 0.0
    """The share that is done, 0 to 1."""


class TuneStage(StrEnum):
    """The steps of a search for settings."""

    READING = "READING"
    TRYING = "TRYING"


@dataclass(frozen=True, slots=True)
class TuneProgress:
    """How far a search for settings has come."""

    stage: TuneStage = TuneStage.READING
    progress: float = 0.0
    """The share that is done, 0 to 1."""
    trials: tuple[Trial, ...] = ()
    """Those that have ended."""
