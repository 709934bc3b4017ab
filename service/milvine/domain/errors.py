"""Every error that a caller can be told.

MilvineError
├── InvalidArgument          a field of the request breaks its rule
│   ├── InvalidFilter        the filter does not parse or type-check
│   └── InvalidPageToken
├── NotFound
├── AlreadyExists
├── FailedPrecondition       the state of the service does not allow it
├── Aborted                  something else is in the way; may be tried again
├── Cancelled
├── DeadlineExceeded
├── Unavailable              a store does not answer; may be tried again
├── NotSupported             the store at hand can't do it
├── LimitReached
└── DataLoss
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """The reason of an error; `error_reason.proto` has the same names and their meanings."""

    INVALID_FIELD = "INVALID_FIELD"
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    INVALID_FILTER = "INVALID_FILTER"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"  # noqa: S105 - no secret
    CATALOG_NOT_FOUND = "CATALOG_NOT_FOUND"
    ITEM_NOT_FOUND = "ITEM_NOT_FOUND"
    USER_NOT_FOUND = "USER_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    RELEASE_NOT_FOUND = "RELEASE_NOT_FOUND"
    OPERATION_NOT_FOUND = "OPERATION_NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    NO_ACTIVE_RELEASE = "NO_ACTIVE_RELEASE"
    NO_TRAINING_DATA = "NO_TRAINING_DATA"
    NO_TIME_ORDER = "NO_TIME_ORDER"
    TRAINING_DIVERGED = "TRAINING_DIVERGED"
    ALL_TRIALS_FAILED = "ALL_TRIALS_FAILED"
    RESOURCE_IN_USE = "RESOURCE_IN_USE"
    WRONG_STATE = "WRONG_STATE"
    INCOMPATIBLE_DECLARATION = "INCOMPATIBLE_DECLARATION"
    GATE_FAILED = "GATE_FAILED"
    OPERATION_IN_PROGRESS = "OPERATION_IN_PROGRESS"
    OPERATION_CANCELLED = "OPERATION_CANCELLED"
    WORKER_LOST = "WORKER_LOST"
    RECORDS_UNAVAILABLE = "RECORDS_UNAVAILABLE"
    VECTORS_UNAVAILABLE = "VECTORS_UNAVAILABLE"
    ARTIFACTS_UNAVAILABLE = "ARTIFACTS_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    INTERNAL_FAULT = "INTERNAL_FAULT"
    ARTIFACT_DAMAGED = "ARTIFACT_DAMAGED"
    LIMIT_REACHED = "LIMIT_REACHED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NO_TEXT_INDEX = "NO_TEXT_INDEX"


@dataclass(frozen=True, slots=True)
class Violation:
    """A field of a request that breaks its rule."""

    field: str
    """The path of the field in the request, as `items[3].fields.year`."""
    description: str
    """The rule and the way out, for people."""


class MilvineError(Exception):
    """An error that a caller is told: what went wrong and the way out."""

    code: ClassVar[str] = "INTERNAL"
    """The name of the canonical status code."""

    def __init__(
        self, message: str, reason: Reason, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})


class InvalidArgument(MilvineError):
    """A field of the request breaks its rule."""

    code = "INVALID_ARGUMENT"

    def __init__(
        self,
        violations: Iterable[Violation],
        reason: Reason = Reason.INVALID_FIELD,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.violations = tuple(violations)
        text = "; ".join(f"{v.field}: {v.description}" for v in self.violations[:3])
        more = len(self.violations) - 3
        super().__init__(text + (f"; and {more} more" if more > 0 else ""), reason, metadata)

    @classmethod
    def at(cls, field: str, description: str) -> InvalidArgument:
        """The error of a single field."""
        return cls([Violation(field, description)])


class InvalidFilter(InvalidArgument):
    """The filter does not parse, names an unknown field or compares wrong types."""

    def __init__(self, description: str, column: int, field: str = "filter") -> None:
        self.column = column
        self.description = description
        super().__init__(
            [Violation(field, f"column {column}: {description}")],
            Reason.INVALID_FILTER,
            {"column": str(column)},
        )


class InvalidPageToken(InvalidArgument):
    """The page token was not given by this method for these arguments."""

    def __init__(self) -> None:
        super().__init__(
            [
                Violation(
                    "page_token",
                    "was not returned by this method for these arguments; "
                    "start again with an empty token",
                )
            ],
            Reason.INVALID_PAGE_TOKEN,
        )


class NotFound(MilvineError):
    """What the request names does not exist."""

    code = "NOT_FOUND"

    @classmethod
    def of(cls, resource: str, identifier: str) -> NotFound:
        """The error of a missing catalog, item, user, model, release or operation."""
        return cls(
            f"there is no {resource} {identifier!r}",
            Reason(f"{resource.upper()}_NOT_FOUND"),
            {f"{resource}_id": identifier},
        )


class AlreadyExists(MilvineError):
    """What the request would create exists."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(MilvineError):
    """The state of the service does not allow the request."""

    code = "FAILED_PRECONDITION"


class Aborted(MilvineError):
    """Something else is in the way."""

    code = "ABORTED"


class Cancelled(MilvineError):
    """The work was cancelled by a client."""

    code = "CANCELLED"

    def __init__(self, message: str = "the operation was cancelled") -> None:
        super().__init__(message, Reason.OPERATION_CANCELLED)


class DeadlineExceeded(MilvineError):
    """The work took longer than the call allowed."""

    code = "DEADLINE_EXCEEDED"

    def __init__(self, message: str = "the work took longer than the call allowed") -> None:
        super().__init__(message, Reason.DEADLINE_EXCEEDED)


class Unavailable(MilvineError):
    """A store does not answer; the call may be tried again."""

    code = "UNAVAILABLE"


class NotSupported(MilvineError):
    """The store at hand can't do what the request asks for."""

    code = "UNIMPLEMENTED"

    def __init__(self, message: str) -> None:
        super().__init__(message, Reason.NOT_SUPPORTED)


class LimitReached(MilvineError):
    """A limit of the service is reached."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, reason: Reason = Reason.LIMIT_REACHED) -> None:
        super().__init__(message, reason)


class DataLoss(MilvineError):
    """Something that was stored is missing or damaged."""

    code = "DATA_LOSS"

    def __init__(self, message: str) -> None:
        super().__init__(message, Reason.ARTIFACT_DAMAGED)
