"""What the rows of operations carry, by kind: requests, progress and results.

Each is a frozen dataclass; `to_json` and `from_json` take it to the row and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from milvine.domain.model import Holdout, ModelConfig
from milvine.domain.operation import Json
from milvine.domain.tuning import Trial, TunePlan

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
    process_count: int = 1


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training made."""

    model_id: str


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """Asks for a model to be measured: `OperationKind.EVALUATE`; it gives a `TrainResult`."""

    catalog_id: str
    model_id: str
    holdout: Holdout
    release_id: str = ""
    """A release of the model, whose live index is measured, too; empty for none."""


@dataclass(frozen=True, slots=True)
class FollowingTraining:
    """A training of the best settings, after the search for them."""

    operation_id: str
    """The id that its operation will have: a search that is taken up again keeps it."""
    model_id: str
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """Asks for a search for settings: `OperationKind.TUNE`."""

    catalog_id: str
    plan: TunePlan
    event_types: tuple[str, ...] = ()
    following: FollowingTraining | None = None


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a search for settings found."""

    trials: tuple[Trial, ...]
    best_config: ModelConfig


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
