"""Errors as callers see them."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from milvine.api import errors
from milvine.domain import errors as domain
from milvine.domain.errors import InvalidArgument, MilvineError, Reason, Violation
from milvine.v1 import error_reason_pb2

# grpc refuses metadata of more than 8 KiB; the rest is for other trailers and base64.
ROOM = 8_192 - 512


def details(status, kind):
    """The details of that type."""
    found = []
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


def subclasses(kind):
    """The class and everything that is derived from it."""
    return {kind}.union(*(subclasses(k) for k in kind.__subclasses__()))


def test_reasons_are_those_of_the_proto():
    """The reasons of the domain and of the API are the same."""
    names = {
        name.removeprefix("ERROR_REASON_")
        for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    assert names - {"UNSPECIFIED"} == {reason.value for reason in Reason}


def test_every_error_has_a_code():
    """Each error of the domain has a canonical code, and is told as it is."""
    known = {k for k in subclasses(MilvineError) if k.__module__ == domain.__name__}
    for kind in known - {MilvineError}:
        assert grpc.StatusCode[kind.code] is not grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument.at("x", "y"), grpc.StatusCode.INVALID_ARGUMENT),
        (domain.InvalidFilter("y", 3), grpc.StatusCode.INVALID_ARGUMENT),
        (domain.InvalidPageToken(), grpc.StatusCode.INVALID_ARGUMENT),
        (domain.NotFound.of("item", "7"), grpc.StatusCode.NOT_FOUND),
        (domain.AlreadyExists("x", Reason.ALREADY_EXISTS), grpc.StatusCode.ALREADY_EXISTS),
        (domain.FailedPrecondition("x", Reason.WRONG_STATE), grpc.StatusCode.FAILED_PRECONDITION),
        (domain.Aborted("x", Reason.OPERATION_IN_PROGRESS), grpc.StatusCode.ABORTED),
        (domain.Cancelled(), grpc.StatusCode.CANCELLED),
        (domain.DeadlineExceeded(), grpc.StatusCode.DEADLINE_EXCEEDED),
        (domain.Unavailable("x", Reason.RECORDS_UNAVAILABLE), grpc.StatusCode.UNAVAILABLE),
        (domain.NotSupported("x"), grpc.StatusCode.UNIMPLEMENTED),
        (domain.LimitReached("x"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (domain.DataLoss("x"), grpc.StatusCode.DATA_LOSS),
        (errors.InternalFault("id"), grpc.StatusCode.INTERNAL),
        (errors.malformed(), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_status(error, code):
    """An error becomes its code, with its message, reason and metadata."""
    status = errors.status_of(error)
    [info] = details(status, error_details_pb2.ErrorInfo)
    assert status.code == code.value[0]
    assert status.message == error.message
    assert (info.reason, info.domain) == (error.reason.value, "milvine")
    assert dict(info.metadata) == error.metadata


def test_violations_are_listed():
    """Each field that breaks a rule is named with the rule."""
    error = InvalidArgument([Violation("a", "one"), Violation("b[3].c", "two")])
    [bad] = details(errors.status_of(error), error_details_pb2.BadRequest)
    found = [(v.field, v.description) for v in bad.field_violations]
    assert found == [("a", "one"), ("b[3].c", "two")]


def test_unavailable_says_when_to_retry():
    """An error that passes tells how long to wait; another does not."""
    away = errors.status_of(domain.Unavailable("x", Reason.VECTORS_UNAVAILABLE))
    [info] = details(away, error_details_pb2.RetryInfo)
    assert info.retry_delay.ToMilliseconds() == 500
    assert not details(errors.status_of(domain.DataLoss("x")), error_details_pb2.RetryInfo)


@given(st.lists(st.tuples(st.text(max_size=400), st.text(max_size=400)), max_size=30))
def test_fits_the_trailers(pairs):
    """However much is wrong, the error fits into what gRPC lets pass."""
    error = InvalidArgument(
        [Violation("é" * 5_000, "ß" * 5_000), *(Violation(*p) for p in pairs)] * 100,
        metadata={"catalog_id": "\U0001f600" * 20_000},
    )
    status = errors.status_of(error)
    [(_, data)] = errors.trailers(status)
    percent_encoded = 3 * len(status.message.encode())
    assert len(data) * 4 / 3 + percent_encoded < ROOM


def test_surrogates_do_not_break():
    """A text that is no UTF-8 can be told all the same."""
    assert errors.status_of(InvalidArgument.at("a\ud800", "b\udfff")).message == "a?: b?"
