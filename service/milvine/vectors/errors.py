"""The one table from what Milvus and gRPC say to the errors of the domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from milvine.domain.errors import (
    DeadlineExceeded,
    LimitReached,
    MilvineError,
    NotSupported,
    Reason,
    Unavailable,
)


class CollectionMissing(Unavailable):
    """There is no collection of that name."""

    def __init__(self) -> None:
        super().__init__(
            "a collection of the release is missing; try again, or publish the model again",
            Reason.VECTORS_UNAVAILABLE,
        )


class CollectionNotLoaded(Unavailable):
    """The collection exists and is not in the server's memory; `load` puts it there."""

    def __init__(self) -> None:
        super().__init__(
            "a collection of the release is not loaded yet; try again", Reason.VECTORS_UNAVAILABLE
        )


class VectorsFault(MilvineError):
    """The vector store refused a call that should be right; its words are in the cause."""

    def __init__(self) -> None:
        super().__init__("the vector store refused a call", Reason.INTERNAL_FAULT)


class StoreError(Exception):
    """What the store said, as the cause of the error that a caller is told."""


def unavailable() -> Unavailable:
    """The error of a vector store that does not answer."""
    return Unavailable("the vector store does not answer", Reason.VECTORS_UNAVAILABLE)


def _refused() -> Unavailable:
    return Unavailable("the vector store refuses the credentials", Reason.VECTORS_UNAVAILABLE)


def _limited() -> MilvineError:
    return LimitReached("the vector store is at a limit of its own")


def _unsupported() -> MilvineError:
    return NotSupported("the vector store at hand can't do this")


_BY_GRPC: dict[grpc.StatusCode, Callable[[], MilvineError]] = {
    grpc.StatusCode.CANCELLED: unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.PERMISSION_DENIED: _refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: _limited,
    grpc.StatusCode.UNAUTHENTICATED: _refused,
    grpc.StatusCode.UNAVAILABLE: unavailable,
    grpc.StatusCode.UNIMPLEMENTED: _unsupported,
}

# The codes of Milvus's `pkg/util/merr`, stable since 2.3; Lite uses the same.
_BY_MILVUS: dict[int, Callable[[], MilvineError]] = {
    1: unavailable,  # service not ready
    2: unavailable,  # service unavailable
    3: _limited,  # out of memory
    4: _limited,  # too many concurrent requests
    8: _limited,  # rate limit
    9: _limited,  # force deny
    100: CollectionMissing,
    101: CollectionNotLoaded,
    102: _limited,  # number of collections
    103: unavailable,  # not fully loaded
    106: unavailable,  # on recovering
    503: unavailable,  # channel not available
    901: unavailable,  # node not found
    903: unavailable,  # node offline
}


def from_grpc(error: grpc.RpcError) -> MilvineError:
    """The domain's error for a call that did not come back with a reply."""
    return _BY_GRPC.get(error.code(), VectorsFault)()


def check_status(status: Any) -> None:  # noqa: ANN401 - the generated messages have no types
    """Raise the domain's error where the status of a reply is not success."""
    code, legacy = status.code, status.error_code
    if code or legacy:
        error = _BY_MILVUS.get(code, VectorsFault)()
        raise error from StoreError(f"{code}: {status.reason}")
