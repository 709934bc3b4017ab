"""What happens around every call: request id, deadline, errors, metrics, one line in the log."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from milvine.api import errors
from milvine.api.calls import Call, Calls, Method
from milvine.api.services import Context

Handler: TypeAlias = grpc.RpcMethodHandler
# Any message: the interceptor stands around methods of every type.
Behaviour: TypeAlias = Callable[[Any, Context], Any]
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

_MALFORMED = object()
"""Stands in for a request whose bytes don't parse, until an error can be answered."""

_FACTORIES = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc] # grpc has no types
    """Wraps each method's handler once, at its first call."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """The handler of a call's method with everything around it; None for an unknown method."""
        name = handler_call_details.method
        if name not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[name] = _wrapped(handler, self._calls.method(name))
        return self._wrapped[name]


def _wrapped(handler: Handler, method: Method) -> Handler:
    shape = (bool(handler.request_streaming), bool(handler.response_streaming))
    behaviour: Behaviour = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    check = _checked_all if handler.request_streaming else _checked
    wrap = _stream if inspect.isasyncgenfunction(behaviour) else _unary
    deadline_s = None if any(shape) else method.timeout_s
    return _FACTORIES[shape](
        wrap(behaviour, check, method, deadline_s),
        request_deserializer=_lenient(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )


def _unary(
    behaviour: Behaviour, check: Callable[[Any], Any], method: Method, deadline_s: float | None
) -> Behaviour:
    async def call(request: Any, context: Context) -> Any:  # noqa: ANN401 - any message
        timeout_s = deadline_s if context.time_remaining() is None else None
        async with Call(method, request, context) as call, asyncio.timeout(timeout_s):
            response = await behaviour(check(request), context)
            call.answered(response)
            return response

    return call


def _stream(
    behaviour: Behaviour, check: Callable[[Any], Any], method: Method, _: float | None
) -> Behaviour:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401 - the same
        async with (
            Call(method, request, context),
            aclosing(behaviour(check(request), context)) as responses,
        ):
            async for response in responses:
                yield response

    return call


def _checked(request: Any) -> Any:  # noqa: ANN401 - any message
    if request is _MALFORMED:
        raise errors.malformed()
    return request


async def _checked_all(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


def _lenient(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    # What a deserializer raises becomes INTERNAL before a handler could say better.
    def lenient(data: bytes) -> Any:  # noqa: ANN401 - any message
        try:
            return deserialize(data)
        except DecodeError:
            return _MALFORMED

    return lenient
