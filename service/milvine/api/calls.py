"""Calls under way: how each is identified, measured, logged, and ended when it fails."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from milvine.api import errors
from milvine.api.services import Context
from milvine.domain.errors import DeadlineExceeded, MilvineError

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_REQUEST_IDS = itertools.count(secrets.randbits(64))
"""From a random one on: to ask the system for each costs more than all else about a call."""
_QUIET = ("/grpc.health.", "/grpc.reflection.")
"""Methods that probes call all the time: their ends are logged for debugging, but for faults."""
_HARMLESS = ("OK", "CANCELLED", "DEADLINE_EXCEEDED")
_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

_log = structlog.get_logger("milvine.api")


class Calls:
    """The metrics of all calls of a server."""

    def __init__(self, registry: CollectorRegistry, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ended = Counter(
            "milvine_grpc_calls", "Calls that ended.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "milvine_grpc_call_seconds",
            "How long calls took.",
            ["method"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "milvine_grpc_calls_in_flight",
            "Calls under way.",
            ["method"],
            registry=registry,
            multiprocess_mode="livesum",  # where several processes count, the sum over live ones
        )

    def method(self, path: str) -> Method:
        """What calls of a method share; made once a method."""
        name = path.lstrip("/")
        return Method(
            name=name,
            is_quiet=path.startswith(_QUIET),
            timeout_s=self._timeout_s,
            ended=self._ended,
            seconds=self._seconds.labels(name),
            in_flight=self._in_flight.labels(name),
        )


@dataclass(frozen=True, slots=True)
class Method:
    """What the calls of a method share."""

    name: str
    is_quiet: bool
    timeout_s: float
    ended: Counter
    seconds: Histogram
    in_flight: Gauge
    _by_code: dict[str, Counter] = field(default_factory=dict)

    def count(self, code: str, seconds: float) -> None:
        """Count a call that ended."""
        if code not in self._by_code:
            self._by_code[code] = self.ended.labels(self.name, code)
        self._by_code[code].inc()
        self.seconds.observe(seconds)


class Call:
    """A call under way. Leaving it answers the error that was raised and writes the log line."""

    __slots__ = ("_context", "_hits", "_method", "_request", "_started", "request_id")

    def __init__(
        self,
        method: Method,
        request: Any,  # noqa: ANN401 - any message, or a stream of them
        context: Context,
    ) -> None:
        self._method = method
        self._request = request
        self._context = context
        self._hits: int | None = None
        self._started = time.perf_counter()
        self.request_id = _request_id(context)

    def answered(self, response: Any) -> None:  # noqa: ANN401 - any message
        """Note what the log says of the answer."""
        hits = getattr(response, "hits", None)
        self._hits = None if hits is None else len(hits)

    async def __aenter__(self) -> Self:
        self._method.in_flight.inc()
        structlog.contextvars.bind_contextvars(request_id=self.request_id)
        self._context.set_trailing_metadata(((REQUEST_ID_KEY, self.request_id),))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._end("OK")
        elif isinstance(error, grpc.aio.AbortError):
            self._end(_name(self._context.code()))
        elif not isinstance(error, Exception):
            self._end(self._interruption())
        else:
            await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        """End the call with the status of an error."""
        known = self._known(error)
        status = errors.status_of(known)
        code = errors.code_of(known)
        self._end(code.name, reason=str(known.reason))
        trailers = (*errors.trailers(status), (REQUEST_ID_KEY, self.request_id))
        await self._context.abort(code, status.message, trailers)

    def _known(self, error: Exception) -> MilvineError:
        if isinstance(error, MilvineError) and errors.is_told(error):
            return error
        if isinstance(error, TimeoutError):
            return DeadlineExceeded()
        _log.error("fault", method=self._method.name, request_id=self.request_id, exc_info=error)
        return errors.InternalFault(self.request_id)

    def _interruption(self) -> str:
        """Why the client waits no more."""
        is_late = self._context.time_remaining() == 0
        return "DEADLINE_EXCEEDED" if is_late else "CANCELLED"

    def _end(self, code: str, *, reason: str | None = None) -> None:
        seconds = time.perf_counter() - self._started
        self._method.in_flight.dec()
        self._method.count(code, seconds)
        log = _log.debug if self._method.is_quiet and code in _HARMLESS else _log.info
        known = {
            "reason": reason,
            "catalog": getattr(self._request, "catalog_id", None),
            "hits": self._hits,
        }
        log(
            "call",
            method=self._method.name,
            code=code,
            ms=round(seconds * 1_000, 2),
            request_id=self.request_id,
            **{key: value for key, value in known.items() if value is not None},
        )


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return f"{next(_REQUEST_IDS) & 0xFFFFFFFFFFFFFFFF:016x}"


def _name(code: grpc.StatusCode | int) -> str:
    """The name of a code, which grpc.aio gives as its number."""
    if isinstance(code, grpc.StatusCode):
        return str(code.name)
    return next((known.name for known in grpc.StatusCode if known.value[0] == code), "UNKNOWN")
