"""What happens around calls of all four arities, over a real connection."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as rpc_status
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from milvine.api.calls import Calls
from milvine.api.interceptors import Interceptor
from milvine.domain.errors import InvalidArgument, NotFound, Reason, Unavailable

BAD_UTF8 = b"\x0a\x02\xff\xfe"
ERRORS = {
    "bad": InvalidArgument.at("a.b", "is wrong"),
    "missing": NotFound.of("item", "7"),
    "away": Unavailable("the database does not answer", Reason.RECORDS_UNAVAILABLE),
    "fault": KeyError("secret detail"),
    "late": TimeoutError("secret detail"),
}


class Echo:
    """Methods of four arities: they answer what they are told, or fail as they are told."""

    def __init__(self):
        self.hanging = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def unary(self, request, context):
        return await self._answer(request, context)

    async def collect(self, requests, context):
        return StringValue(
            value=",".join([(await self._answer(r, context)).value async for r in requests])
        )

    async def spread(self, request, context):
        yield request
        yield await self._answer(request, context)

    async def each(self, requests, context):
        async for request in requests:
            yield await self._answer(request, context)

    async def _answer(self, request, context):
        if request.value in ERRORS:
            raise ERRORS[request.value]
        if request.value == "abort":
            await context.abort(grpc.StatusCode.DATA_LOSS, "on its own")
        if request.value == "hang":
            self.hanging.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        return request


ARITIES = {
    "unary": grpc.unary_unary_rpc_method_handler,
    "collect": grpc.stream_unary_rpc_method_handler,
    "spread": grpc.unary_stream_rpc_method_handler,
    "each": grpc.stream_stream_rpc_method_handler,
}


class Connection:
    """A channel to an echo server, and its metrics."""

    def __init__(self, channel, registry, echo):
        self.registry = registry
        self.echo = echo
        self._calls = {
            "unary": channel.unary_unary("/test.Echo/unary"),
            "collect": channel.stream_unary("/test.Echo/collect"),
            "spread": channel.unary_stream("/test.Echo/spread"),
            "each": channel.stream_stream("/test.Echo/each"),
            "nope": channel.unary_unary("/test.Echo/nope"),
        }

    def start(self, arity, *texts, raw=None, **options):
        """A call under way."""
        requests = [raw] if raw else [StringValue(value=t).SerializeToString() for t in texts]
        return self._calls[arity](
            iter(requests) if arity in ("collect", "each") else requests[0], **options
        )

    async def finish(self, arity, *texts, **options):
        """A call and its answers."""
        call = self.start(arity, *texts, **options)
        answers = await _drain(call, arity)
        return call, [StringValue.FromString(answer).value for answer in answers]

    async def fail(self, arity, *texts, **options):
        """The status of a call that fails, its code, and its trailers."""
        call = self.start(arity, *texts, **options)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _drain(call, arity)
        status = await rpc_status.from_call(call)
        return raised.value.code(), status, dict(await call.trailing_metadata())

    def ended(self, arity, code):
        """How many calls are counted that ended with a code."""
        labels = {"method": f"test.Echo/{arity}", "code": code}
        return self.registry.get_sample_value("milvine_grpc_calls_total", labels)


async def _drain(call, arity):
    """All answers of a call."""
    if arity in ("spread", "each"):
        return [answer async for answer in call]
    return [await call]


@asynccontextmanager
async def connected(timeout_s=30.0):
    """An echo server behind the interceptor."""
    registry, echo = CollectorRegistry(), Echo()
    server = grpc.aio.server(interceptors=[Interceptor(Calls(registry, timeout_s=timeout_s))])
    handlers = {
        name: make(
            getattr(echo, name),
            request_deserializer=StringValue.FromString,
            response_serializer=StringValue.SerializeToString,
        )
        for name, make in ARITIES.items()
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Connection(channel, registry, echo)
    await server.stop(None)


@pytest.fixture
async def echo():
    """A connection to an echo server with the usual deadline."""
    async with connected() as connection:
        yield connection


def details(status, kind):
    """The detail of that type."""
    message = kind()
    assert any(packed.Unpack(message) for packed in status.details)
    return message


@pytest.mark.parametrize("arity", ARITIES)
async def test_answers_pass(echo, arity):
    """A call that succeeds is left as it is."""
    _, answers = await echo.finish(arity, "a")
    assert answers == (["a", "a"] if arity == "spread" else ["a"])
    assert echo.ended(arity, "OK") == 1


@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("bad", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        ("missing", grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND"),
        ("away", grpc.StatusCode.UNAVAILABLE, "RECORDS_UNAVAILABLE"),
        ("late", grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    ],
)
async def test_errors_are_mapped(echo, arity, text, code, reason):
    """An error becomes its code, its reason and the fields, in every arity."""
    found, status, trailers = await echo.fail(arity, text)
    assert found is code
    assert details(status, error_details_pb2.ErrorInfo).reason == reason
    assert trailers["x-request-id"]
    assert "secret" not in status.message
    assert echo.ended(arity, code.name) == 1


@pytest.mark.parametrize("arity", ARITIES)
async def test_faults_are_hidden(echo, arity):
    """A fault tells the caller its request id only, and the log everything."""
    with capture_logs() as logs:
        code, status, trailers = await echo.fail(arity, "fault")
    info = details(status, error_details_pb2.ErrorInfo)
    assert (code, info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_FAULT")
    assert dict(info.metadata) == {"request_id": trailers["x-request-id"]}
    assert "secret" not in str(status)
    [fault] = [line for line in logs if line["event"] == "fault"]
    assert isinstance(fault["exc_info"], KeyError)
    assert fault["request_id"] == trailers["x-request-id"]


@pytest.mark.parametrize("arity", ARITIES)
async def test_malformed_bytes(echo, arity):
    """Bytes that are no message are the caller's fault, and name nothing internal."""
    code, status, _ = await echo.fail(arity, raw=BAD_UTF8)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details(status, error_details_pb2.ErrorInfo).reason == "MALFORMED_REQUEST"
    assert details(status, error_details_pb2.BadRequest).field_violations[0].field == "request"
    assert "StringValue" not in status.message


@pytest.mark.parametrize("arity", ARITIES)
async def test_abort_passes(echo, arity):
    """A servicer's own abort is left as it is."""
    code, status, _ = await echo.fail(arity, "abort")
    assert code is grpc.StatusCode.DATA_LOSS
    assert status is None
    assert echo.ended(arity, "DATA_LOSS") == 1


async def test_unknown_method(echo):
    """A method that there is not is UNIMPLEMENTED."""
    code, _, _ = await echo.fail("nope", "a")
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_default_deadline():
    """A unary call without a deadline gets the server's."""
    async with connected(timeout_s=0.05) as echo:
        code, status, _ = await echo.fail("unary", "hang")
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert details(status, error_details_pb2.ErrorInfo).reason == "DEADLINE_EXCEEDED"
        assert echo.echo.cancelled.is_set()


async def test_own_deadline():
    """A call's own deadline counts in place of the server's, and is counted as such."""
    async with connected(timeout_s=0.001) as echo:
        with capture_logs() as logs:
            code, _, _ = await echo.fail("unary", "hang", timeout=0.2)
            await asyncio.wait_for(echo.echo.cancelled.wait(), 10)
            await asyncio.sleep(0)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert [line["code"] for line in logs] == ["DEADLINE_EXCEEDED"]


@pytest.mark.parametrize("arity", ["unary", "spread", "each"])
async def test_cancelled_call(echo, arity):
    """A call that the client gives up is stopped and counted."""
    call = echo.start(arity, "hang")
    sent = asyncio.ensure_future(call.read() if arity != "unary" else call.wait_for_connection())
    await asyncio.wait_for(echo.echo.hanging.wait(), 10)
    call.cancel()
    await asyncio.wait_for(echo.echo.cancelled.wait(), 10)
    for _ in range(1_000):
        if echo.ended(arity, "CANCELLED"):
            break
        await asyncio.sleep(0.001)
    assert echo.ended(arity, "CANCELLED") == 1
    await asyncio.gather(sent, return_exceptions=True)


@pytest.mark.parametrize("arity", ARITIES)
async def test_request_id_is_kept(echo, arity):
    """A caller's request id comes back and stands in the log."""
    with capture_logs() as logs:
        call, _ = await echo.finish(arity, "a", metadata=(("x-request-id", "mine-1"),))
    assert dict(await call.trailing_metadata())["x-request-id"] == "mine-1"
    assert logs[-1]["request_id"] == "mine-1"


@pytest.mark.parametrize("given_id", ["", "x" * 129, "a b"])
async def test_bad_request_id(echo, given_id):
    """A request id that could break a log is replaced."""
    call, _ = await echo.finish("unary", "a", metadata=(("x-request-id", given_id),))
    assert dict(await call.trailing_metadata())["x-request-id"] not in ("", given_id)


async def test_canonical_line(echo):
    """Each call is one line with method, code, time and request id."""
    with capture_logs() as logs:
        await echo.finish("unary", "a")
        await echo.fail("unary", "missing")
    assert [(line["event"], line["method"], line["code"]) for line in logs] == [
        ("call", "test.Echo/unary", "OK"),
        ("call", "test.Echo/unary", "NOT_FOUND"),
    ]
    assert logs[1]["reason"] == "ITEM_NOT_FOUND"
    assert all(line["ms"] >= 0 for line in logs)


async def test_metrics(echo):
    """Calls are counted by code, timed, and not in flight when they have ended."""
    await echo.finish("unary", "a")
    labels = {"method": "test.Echo/unary"}
    read = echo.registry.get_sample_value
    assert read("milvine_grpc_call_seconds_count", labels) == 1
    assert read("milvine_grpc_calls_in_flight", labels) == 0
