"""What the rows of operations carry, by kind: requests, progress and results.

Each is a frozen dataclass; `to_json` and `from_json` take it to the row and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from milvine.domain.model import EpochReport, Holdout, ModelConfig
from milvine.domain.operation import Json

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """Asks for a model: `OperationKind.TRAIN`."""

    catalog_id: str
    model_id: str
    """The id that the model will have: a training that is taken up again keeps it."""
    config: ModelConfig
    holdout: Holdout
    event_types: tuple[str, ...] = ()
    display_name: str = ""


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
    holdout_epochs: tuple[EpochReport, ...] = ()
    """The reports of the epochs of FITTING_HOLDOUT so far."""
    epochs: tuple[EpochReport, ...] = ()
    """The reports of the epochs of FITTING so far."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training made."""

    model_id: str


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """Asks for a release: `OperationKind.PUBLISH`."""

    catalog_id: str
    model_id: str
    release_id: str
    """The id that the release will have: a publication that is taken up again keeps it."""
    hold: bool = False
    min_index_recall: float = 0.95
    keep_releases: int = 1


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


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What a publication made."""

    release_id: str


@dataclass(frozen=True, slots=True)
class EraseUserRequest:
    """Asks for a user to be erased: `OperationKind.ERASE_USER`."""

    catalog_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class EraseUserResult:
    """What an erasure removed."""

    had_metadata: bool
    interaction_count: int
    erase_time: datetime
    release_ids: tuple[str, ...] = field(default_factory=tuple)


def to_json(payload: object) -> dict[str, Any]:
    """The payload as a JSON object."""
    kind: Any = type(payload)
    dumped: dict[str, Any] = _adapter(kind).dump_python(payload, mode="json")
    return dumped


def from_json(kind: type[T], document: Json) -> T:
    """The payload of that kind that `to_json` made the document of; defaults where it is empty."""
    any_kind: Any = kind
    payload: T = _adapter(any_kind).validate_python(dict(document))
    return payload


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
