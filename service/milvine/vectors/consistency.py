"""Which writes a read must see."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pymilvus.grpc_gen.common_pb2 import ConsistencyLevel

_SETTLED_S = 10.0
"""After this a write is older than what a bounded read may miss (5 s by default)."""


@dataclass(frozen=True, slots=True)
class Guarantee:
    """A consistency level and the moment that it speaks of, as Milvus takes them."""

    level: int
    timestamp: int


STRONG = Guarantee(ConsistencyLevel.Strong, 0)
BOUNDED = Guarantee(ConsistencyLevel.Bounded, 2)


@dataclass(slots=True)
class Writes:
    """The latest write to each collection by this process, so that its reads see it."""

    _latest: dict[str, tuple[int, float]] = field(default_factory=dict)

    def note(self, name: str, timestamp: int) -> None:
        """Take notice of a write that was acknowledged with the server's timestamp."""
        known, _ = self._latest.get(name, (0, 0.0))
        self._latest[name] = (max(known, timestamp), time.monotonic())

    def guarantee(self, name: str, *, strong: bool) -> Guarantee:
        """What a read of the collection asks for."""
        if strong:
            return STRONG
        timestamp, when = self._latest.get(name, (0, 0.0))
        if not timestamp or time.monotonic() - when > _SETTLED_S:
            self._latest.pop(name, None)
            return BOUNDED
        return Guarantee(ConsistencyLevel.Session, timestamp)
