"""What was read lately, until it is too old or another version of it is asked for."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    version: Hashable
    fresh_until: float


class Remembered(Generic[K, V]):
    """Values by key; one of another version is not found."""

    def __init__(self, *, fresh_s: float, capacity: int) -> None:
        """Values that are good for `fresh_s`; over `capacity` the longest unused go first."""
        self._fresh_s = fresh_s
        self._capacity = capacity
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()

    def get(self, key: K, version: Hashable) -> V | None:
        """The value of a key, where it is known and fresh."""
        entry = self._entries.get(key)
        if entry is None or entry.version != version or entry.fresh_until <= time.monotonic():
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: K, version: Hashable, value: V, *, read_at: float) -> None:
        """Keep a value that was read from the moment `read_at` on, by the monotonic clock."""
        self._entries[key] = _Entry(value, version, read_at + self._fresh_s)
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
