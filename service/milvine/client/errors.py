"""Errors of calls, with everything that the service says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Violation(NamedTuple):
    """A field of the request that breaks its rule."""

    field: str
    description: str


class RpcError(Exception):
    """A call or an operation that failed."""

    def __init__(
        self, code: grpc.StatusCode, message: str, status: status_pb2.Status, request_id: str = ""
    ) -> None:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in status.details:
            detail.Unpack(info)
            detail.Unpack(bad)
        self.code = code
        """The canonical code."""
        self.message = message
        """What went wrong and the way out, for people."""
        self.reason: str = info.reason
        """The reason to decide by, as `error_reason.proto` lists them; empty where the error does
        not come from the service itself."""
        self.metadata: Mapping[str, str] = dict(info.metadata)
        """What the reason is about."""
        self.violations = tuple(Violation(v.field, v.description) for v in bad.field_violations)
        """Which fields of the request break their rules."""
        self.request_id = request_id
        """The id under which the service logged the call."""
        super().__init__(f"{code.name} {self.reason}: {message}" if self.reason else message)

    @classmethod
    def of_call(cls, error: grpc.aio.AioRpcError) -> RpcError:
        """The error of a call."""
        trailers = dict(error.trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
        message = error.details() or error.code().name
        return cls(error.code(), message, status, str(trailers.get("x-request-id", "")))

    @classmethod
    def of_operation(cls, status: status_pb2.Status) -> RpcError:
        """The error of an operation."""
        return cls(_CODES[status.code], status.message, status)
