"""Marks of users, which change when something is written of them: how caches learn of writes.

All processes that use one SQLite file share its marks through a mapped file beside it, so what one
of them remembers of a user counts until any of them writes of the user, and no longer. On
PostgreSQL a process sees the marks of its own writes.
"""

from __future__ import annotations

import mmap
import random
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SLOTS = 1 << 18
"""Users share marks by their hashes: what is written of one makes some others be read anew."""
_MANY = 2_000
"""For so many users it costs less to change every mark."""
_SUFFIX = "-marks"


class Marks:
    """A number for each user; any thread may look and change."""

    def __init__(self, numbers: NDArray[np.uint64], *, is_shared: bool) -> None:
        self._numbers = numbers
        self._random = random.Random()  # noqa: S311 - only has to differ from the number before
        self.is_shared = is_shared
        """Whether they tell of the writes of all processes."""

    @classmethod
    def own(cls) -> Marks:
        """Those of one process."""
        return cls(np.zeros(_SLOTS, np.uint64), is_shared=False)

    @classmethod
    def beside(cls, database: Path) -> Marks:
        """Those of all processes that use a database file; made where there are none."""
        size = _SLOTS * np.dtype(np.uint64).itemsize
        with database.with_name(database.name + _SUFFIX).open("a+b") as file:
            file.truncate(size)  # an older file keeps its marks
            shared = mmap.mmap(file.fileno(), size)
        return cls(np.frombuffer(shared, np.uint64), is_shared=True)

    def of(self, catalog_id: str, user_id: str) -> int:
        """The mark of a user: what is read after this look is good until the mark is another."""
        return int(self._numbers[_slot(catalog_id, user_id)])

    @contextmanager
    def changing(self, catalog_id: str, user_ids: Collection[str]) -> Iterator[None]:
        """Change the marks of users when the block ends, in which something is written of them.

        They change when it fails, too: the write may have come through.
        """
        try:
            yield
        finally:
            # Not counted up: of two processes that count at once one would leave no trace.
            if len(user_ids) > _MANY:
                self._numbers += np.uint64(self._random.getrandbits(63) * 2 + 1)
            else:
                for user_id in user_ids:
                    self._numbers[_slot(catalog_id, user_id)] = self._random.getrandbits(64)


def _slot(catalog_id: str, user_id: str) -> int:
    # Python's own hashes differ from process to process.
    return zlib.crc32(f"{catalog_id}\0{user_id}".encode()) & (_SLOTS - 1)
