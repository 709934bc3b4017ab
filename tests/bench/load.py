"""A load generator for unary gRPC calls that costs little beside what it measures.

gRPC's own Python client takes as much CPU for a call as the server under test. Here each request
is made of bytes once, HTTP/2 frames and all, and replies are read by their frames alone; they are
parsed after the clock has stopped. Callers are closed loops: each sends its next request when the
reply to the last one is there.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS = 0x1, 0x1, 0x4
_HEAD = struct.Struct(">BHBBI")
_UNLIMITED = 2**31 - 1
_FIRST_WINDOW = 65_535
MOST_CONNECTIONS = 16
"""Callers share connections, as those of one client process do; there are enough of them for the
system to spread over several server processes."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load."""

    seconds: float
    latencies_s: list[float]
    """One a reply, in the order of the replies."""
    replies: dict[int, bytes]
    """The last reply to each request, by its place; the message's bytes."""
    failures: int
    """Calls that got no message, but a status."""


def load(
    address: tuple[str, int],
    method: str,
    requests: Sequence[bytes],
    *,
    callers: int,
    seconds: float,
    warm_up_s: float = 0.5,
) -> Load:
    """Call a method with the requests in turns.

    Args:
        address: Host and port.
        method: As `/package.Service/Method`.
        requests: Messages, as bytes.
        callers: How many calls are under way.
        seconds: How long.
        warm_up_s: How long before what counts.
    """
    header = _block(f"{address[0]}:{address[1]}", method)
    frames = [_body(message) for message in requests]
    generator = _Generator(header, frames)
    connections = [generator.connect(address) for _ in range(min(callers, MOST_CONNECTIONS))]
    try:
        return generator.run(connections, callers, warm_up_s, seconds)
    finally:
        for connection in connections:
            connection.socket.close()


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    next_stream: int = 1
    window: int = _FIRST_WINDOW
    received: bytearray = field(default_factory=bytearray)
    under_way: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Stream -> when it began, and the place of its request."""
    bodies: dict[int, bytes] = field(default_factory=dict)
    waiting: int = 0
    """Callers that the peer's window keeps waiting."""


class _Generator:
    def __init__(self, header: bytes, frames: Sequence[bytes]) -> None:
        self._header = header
        self._frames = frames
        self._turn = 0
        self._counts_from = 0.0
        self._load = Load(0.0, [], {}, 0)
        self._failures = 0

    def connect(self, address: tuple[str, int]) -> _Connection:
        connection = _Connection(socket.create_connection(address, 10))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HIHI", 1, 0, 4, _UNLIMITED)  # no header table, a wide window
        connection.socket.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW, 0, 0, struct.pack(">I", _UNLIMITED - _FIRST_WINDOW))
        )
        return connection

    def run(
        self, connections: Sequence[_Connection], callers: int, warm_up_s: float, seconds: float
    ) -> Load:
        with selectors.DefaultSelector() as selector:
            for connection in connections:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            self._counts_from = time.perf_counter() + warm_up_s
            end = self._counts_from + seconds
            for n in range(callers):
                self._send(connections[n % len(connections)], 1)
            while (now := time.perf_counter()) < end:
                for key, _ in selector.select(end - now):
                    self._receive(key.data)
        return Load(seconds, self._load.latencies_s, self._load.replies, self._failures)

    def _send(self, connection: _Connection, count: int) -> None:
        out = []
        for _ in range(count):
            place = self._turn % len(self._frames)
            frame = self._frames[place]
            if connection.window < len(frame):
                connection.waiting += 1
                continue
            self._turn += 1
            stream = connection.next_stream
            connection.next_stream += 2
            connection.window -= len(frame)
            mark = struct.pack(">I", stream)
            # Type and flags stand before the stream's number, the payload after it.
            out += [self._header[:5], mark, self._header[9:], frame[:5], mark, frame[9:]]
            connection.under_way[stream] = (time.perf_counter(), place)
        if out:
            connection.socket.sendall(b"".join(out))

    def _receive(self, connection: _Connection) -> None:
        data = connection.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        connection.received += data
        ended = sum(self._take(connection, *frame) for frame in _frames(connection.received))
        ready, connection.waiting = ended + connection.waiting, 0
        self._send(connection, ready)

    def _take(
        self, connection: _Connection, kind: int, flags: int, stream: int, payload: bytes
    ) -> bool:
        """Handle a frame; whether a caller is free again."""
        if kind == _DATA:
            connection.bodies[stream] = connection.bodies.get(stream, b"") + payload
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            connection.socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind == _GOAWAY:
            raise ConnectionError("the server says goodbye")
        elif kind == _WINDOW and stream == 0:
            connection.window += struct.unpack(">I", payload)[0]
        if kind == _RESET or (flags & _END_STREAM and kind in (_DATA, _HEADERS)):
            self._end(connection, stream)
            return True
        return False

    def _end(self, connection: _Connection, stream: int) -> None:
        now = time.perf_counter()
        began, place = connection.under_way.pop(stream)
        body = connection.bodies.pop(stream, None)
        if now < self._counts_from:
            return
        if body is None:
            self._failures += 1
            return
        self._load.latencies_s.append(now - began)
        self._load.replies[place] = body[5:]


def _frames(received: bytearray) -> Iterator[tuple[int, int, int, bytes]]:
    """The whole frames that have come; they leave the buffer."""
    at = 0
    found: deque[tuple[int, int, int, bytes]] = deque()
    while len(received) - at >= _HEAD.size:
        high, low, kind, flags, stream = _HEAD.unpack_from(received, at)
        size = (high << 16) + low
        end = at + _HEAD.size + size
        if end > len(received):
            break
        found.append((kind, flags, stream & _UNLIMITED, bytes(received[at + _HEAD.size : end])))
        at = end
    del received[:at]
    return iter(found)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def _block(authority: str, method: str) -> bytes:
    """The frame of a call's headers, on stream 0: literals that no table has to remember."""
    pairs = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in pairs)
    return _frame(_HEADERS, _END_HEADERS, 0, block)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) > 126:  # longer ones have another form
        raise ValueError(f"{text!r} is too long for a header here")
    return bytes([len(data)]) + data


def _body(message: bytes) -> bytes:
    return _frame(_DATA, _END_STREAM, 0, b"\x00" + struct.pack(">I", len(message)) + message)
