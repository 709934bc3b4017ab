"""What was read lately, until it is too old or something was written of it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    version: str
    fresh_until: float


class Remembered(Generic[K, V]):
    """Values by key; one of another version is not found.

    A value that was being read while its key was forgotten is not kept: the read may have begun
    before the write.
    """

    def __init__(self, *, fresh_s: float, capacity: int) -> None:
        """Values that are good for `fresh_s`; over `capacity` the longest unused go first."""
        self._fresh_s = fresh_s
        self._capacity = capacity
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._reads: dict[int, set[K]] = {}
        """Of each read under way, the keys that were not forgotten since it began."""

    def get(self, key: K, version: str) -> V | None:
        """The value of a key, where it is known and fresh."""
        entry = self._entries.get(key)
        if entry is None or entry.version != version or entry.fresh_until <= time.monotonic():
            return None
        self._entries.move_to_end(key)
        return entry.value

    def forget(self, keys: Iterable[K]) -> None:
        """Forget keys, those of reads under way too."""
        gone = set(keys)
        for key in gone:
            self._entries.pop(key, None)
        for kept in self._reads.values():
            kept.difference_update(gone)

    @contextmanager
    def reading(self, keys: Collection[K], version: str) -> Iterator[MutableMapping[K, V]]:
        """Keep what the block puts into the mapping, as of the block's beginning."""
        fresh_until = time.monotonic() + self._fresh_s
        kept = set(keys)
        self._reads[id(kept)] = kept
        read: dict[K, V] = {}
        try:
            yield read
        finally:
            del self._reads[id(kept)]
        for key in kept & read.keys():
            self._entries[key] = _Entry(read[key], version, fresh_until)
            self._entries.move_to_end(key)
        self._let_go()

    def _let_go(self) -> None:
        """Drop what is too much or too old, from the longest unused on."""
        now = time.monotonic()
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if len(self._entries) <= self._capacity and oldest.fresh_until > now:
                return
            self._entries.popitem(last=False)
