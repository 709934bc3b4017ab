"""Counts: dear to make and allowed to be old, so made anew behind the requests that use them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import structlog

from milvine.domain.errors import DeadlineExceeded, LimitReached, MilvineError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

log = structlog.get_logger(__name__)

REST = 20
"""Between two makings of a value lies so many times what one takes: they cost 5 % of a thread."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    old_from: float
    """When it is made anew, while requests still get it."""
    stale_from: float
    """When requests wait for the new one."""


class Refreshed(Generic[K, V]):
    """Values by key. One that is old is given at once and made anew meanwhile.

    Only a value that is missing, or that nobody asked for in a long time, is waited for; where it
    can't be made anew, the old one stays. One value is made at a time, so that many keys don't keep
    a store busy. After a request was given up its value is made all the same: asked again, it is
    there.
    """

    def __init__(
        self, *, least_s: float, capacity: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Values that are good for `least_s` and longer; over `capacity` the longest unused go."""
        self._least_s = least_s
        self._capacity = capacity
        self._clock = clock
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._makings: dict[K, asyncio.Task[V]] = {}
        self._turn = asyncio.Lock()

    async def get(self, key: K, make: Callable[[], V], *, timeout_s: float) -> V:
        """The value of a key; `make` gives it, in a thread.

        Raises:
            DeadlineExceeded: It took longer than `timeout_s`, and there is no older one.
            LimitReached: As many values as there is room for are being made.
            MilvineError: What `make` raises, where there is no older one.
        """
        entry = self._entries.get(key)
        now = self._clock()
        if entry is None or now >= entry.stale_from:
            return await self._wait(key, make, entry, timeout_s)
        if now >= entry.old_from and key not in self._makings and self._has_room:
            self._start(key, make)
        self._entries.move_to_end(key)
        return entry.value

    @property
    def is_busy(self) -> bool:
        """Whether a value is being made."""
        return bool(self._makings)

    async def _wait(
        self, key: K, make: Callable[[], V], entry: _Entry[V] | None, timeout_s: float
    ) -> V:
        try:
            making = self._makings.get(key) or self._start(key, make)
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(making)  # others wait for it, too
        except (MilvineError, TimeoutError) as fault:
            if entry is not None:
                return entry.value
            if isinstance(fault, MilvineError):
                raise
            raise DeadlineExceeded(
                "it took longer to count than the call allowed; the count goes on: ask again soon"
            ) from fault

    @property
    def _has_room(self) -> bool:
        return len(self._makings) < self._capacity

    def _start(self, key: K, make: Callable[[], V]) -> asyncio.Task[V]:
        if not self._has_room:
            raise LimitReached(
                f"{self._capacity} different counts are under way already; ask for fewer "
                "different ones, or later"
            )
        making = asyncio.create_task(self._make(key, make))
        self._makings[key] = making
        making.add_done_callback(lambda done: self._end(key, done))
        return making

    async def _make(self, key: K, make: Callable[[], V]) -> V:
        async with self._turn:
            began = self._clock()
            value = await asyncio.to_thread(make)
            ended = self._clock()
        good_s = max(self._least_s, REST * (ended - began))
        self._entries[key] = _Entry(value, ended + good_s, ended + 2 * good_s)
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return value

    def _end(self, key: K, making: asyncio.Task[V]) -> None:
        del self._makings[key]
        if making.cancelled() or (fault := making.exception()) is None:
            return
        is_ours = not isinstance(fault, MilvineError)
        log.warning("a count failed", message=str(fault), exc_info=fault if is_ours else None)
        if key in self._entries:  # not at each request
            later = self._clock() + self._least_s
            self._entries[key] = replace(self._entries[key], old_from=later, stale_from=later)
