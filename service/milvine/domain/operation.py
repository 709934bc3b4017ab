"""Operations: long work that outlives a call, and survives the process that does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = Mapping[str, Any]
"""What is stored as JSON: the edges give it a type."""


class OperationKind(StrEnum):
    """What an operation does."""

    TRAIN = "train"
    TUNE = "tune"
    EVALUATE = "evaluate"
    PUBLISH = "publish"
    ERASE_USER = "erase_user"


class OperationState(StrEnum):
    """Where an operation is in its life."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_done(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (OperationState.QUEUED, OperationState.RUNNING)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an operation failed: the canonical code's name, a reason and words."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """Long work, as its row says."""

    id: str
    catalog_id: str
    kind: OperationKind
    request: Json
    state: OperationState = OperationState.QUEUED
    progress: Json = field(default_factory=dict)
    """What the worker last said of its progress, in the terms of the kind."""
    result: Json = field(default_factory=dict)
    failure: Failure | None = None
    cancel_requested: bool = False
    attempts: int = 0
    """How many workers have taken it up."""
    create_time: datetime | None = None
    end_time: datetime | None = None
