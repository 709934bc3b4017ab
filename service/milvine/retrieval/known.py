"""What is known of a release's items: that the store has them, and in which order to score them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from milvine.retrieval.active import Active
from milvine.retrieval.longest_first import LongestFirst
from milvine.retrieval.matching import LOOK_S, SETTLED_S, Matchings

QUIET_S = 2 * SETTLED_S
"""Items that have not changed for so long are looked up; where they change all the time, that would
be in vain."""
MOST_BYTES = 128 << 20
"""What is kept of all releases; the longest unused goes first."""
MOST_RELEASES = 10_000
"""Of so many it is remembered since when they are quiet."""


@dataclass(slots=True)
class _Entry:
    revision: int
    since: float
    """Since when nothing was seen to change, or was looked up in vain."""
    is_looked_up: bool = False
    items: LongestFirst | None = None

    @property
    def nbytes(self) -> int:
        return self.items.nbytes if self.items else 0


class Known:
    """The items of releases that did not change for a while, looked up once for many requests."""

    def __init__(self, matchings: Matchings) -> None:
        self._matchings = matchings
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._looks: dict[str, asyncio.Task[LongestFirst | None]] = {}

    def of(self, active: Active) -> LongestFirst | None:
        """All items that the store has of a release; None while that is not known.

        They are looked up meanwhile, and nobody waits for it.
        """
        release_id, now = active.release.id, time.monotonic()
        entry = self._entries.get(release_id)
        if entry is None or entry.revision != active.revision:
            entry = _Entry(active.revision, now)
            self._entries[release_id] = entry
        self._entries.move_to_end(release_id)
        if len(self._entries) > MOST_RELEASES:
            self._entries.popitem(last=False)
        is_due = not entry.is_looked_up and now - entry.since >= QUIET_S
        if is_due and release_id not in self._looks:
            look = asyncio.create_task(self._look(active))
            self._looks[release_id] = look
            look.add_done_callback(lambda done: self._end(release_id, entry, done))
        return entry.items

    def _end(self, release_id: str, entry: _Entry, look: asyncio.Task[LongestFirst | None]) -> None:
        del self._looks[release_id]
        if look.cancelled() or look.exception() is not None:
            entry.since = time.monotonic()  # not again at once
            return
        entry.is_looked_up, entry.items = True, look.result()
        spare = sum(each.nbytes for each in self._entries.values()) - MOST_BYTES
        for each in self._entries.values():
            if spare <= 0:
                break
            spare -= each.nbytes
            if each.items:
                each.items, each.is_looked_up, each.since = None, False, time.monotonic()

    async def _look(self, active: Active) -> LongestFirst | None:
        matching = await self._matchings.of(active, "", timeout_s=LOOK_S, may_be_stale=False)
        if matching.pool is None:
            return None
        return await asyncio.to_thread(LongestFirst.of, matching.pool)
