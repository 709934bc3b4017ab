"""Errors as callers see them: a canonical code, a reason and what is wrong with which field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from milvine.domain.errors import InvalidArgument, MilvineError, Reason, Violation

DOMAIN = "milvine"
DETAILS_KEY = "grpc-status-details-bin"
# An error travels in HTTP/2 trailers, which gRPC bounds to 8 KiB on the way.
_MAX_MESSAGE_BYTES = 800
_MAX_VIOLATIONS_BYTES = 2_000
_MAX_TEXT_BYTES = 300
_RETRY_DELAY_NANOS = 500_000_000

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]


class InternalFault(MilvineError):
    """A fault of the service; only the request id leaves it."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            "a fault of the service; the request id finds it in the log",
            Reason.INTERNAL_FAULT,
            {"request_id": request_id},
        )


def malformed() -> InvalidArgument:
    """The error of bytes that are not a message of the method."""
    rule = "is not a message of the type that the method takes; texts must be UTF-8"
    return InvalidArgument([Violation("request", rule)], Reason.MALFORMED_REQUEST)


def is_told(error: MilvineError) -> bool:
    """Whether a caller is told the error itself, and not that the service has a fault."""
    return code_of(error) is not grpc.StatusCode.INTERNAL


def code_of(error: MilvineError) -> grpc.StatusCode:
    """The canonical code of an error."""
    return grpc.StatusCode[error.code]


def status_of(error: MilvineError) -> status_pb2.Status:
    """The error as a google.rpc.Status of at most about 5 KiB."""
    code = code_of(error)
    details: list[Message] = [error_info(error.reason, error.metadata)]
    if isinstance(error, InvalidArgument):
        details.append(_bad_request(error.violations))
    if code is grpc.StatusCode.UNAVAILABLE:
        delay = duration_pb2.Duration(nanos=_RETRY_DELAY_NANOS)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status(code, error.message, details)


def status(code: grpc.StatusCode, message: str, details: Iterable[Message]) -> status_pb2.Status:
    """A google.rpc.Status."""
    return status_pb2.Status(
        code=code.value[0],
        message=_cut(message, _MAX_MESSAGE_BYTES),
        details=[_packed(detail) for detail in details],
    )


def error_info(reason: str, metadata: Mapping[str, str]) -> error_details_pb2.ErrorInfo:
    """The reason and its data in the form that clients decide by."""
    cut = {key: _cut(value, _MAX_TEXT_BYTES) for key, value in metadata.items()}
    return error_details_pb2.ErrorInfo(reason=str(reason), domain=DOMAIN, metadata=cut)


def trailers(status: status_pb2.Status) -> Metadata:
    """The trailing metadata that carries the status."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def _bad_request(violations: Iterable[Violation]) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    for violation in violations:
        bad.field_violations.add(
            field=_cut(violation.field, _MAX_TEXT_BYTES),
            description=_cut(violation.description, _MAX_TEXT_BYTES),
        )
        if bad.ByteSize() > _MAX_VIOLATIONS_BYTES:
            break
    return bad


def _cut(text: str, size: int) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= size:
        return encoded.decode()
    return encoded[:size].decode("utf-8", "ignore") + "…"


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
