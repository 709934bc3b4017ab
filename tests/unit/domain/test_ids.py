"""Ids of the service's own resources."""

from __future__ import annotations

import re
import time

from milvine.domain.ids import new_id


def test_shape():
    """An id is the prefix and 19 characters of [a-z0-9]."""
    assert re.fullmatch(r"r[a-z0-9]{19}", new_id("r"))


def test_order():
    """Ids sort by the time of their making."""
    ids = []
    for _ in range(20):
        ids.append(new_id("m"))
        before = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == before:
            pass
    assert ids == sorted(ids)


def test_unique():
    """Ids of the same millisecond differ."""
    assert len({new_id("o") for _ in range(10_000)}) == 10_000
