"""What is remembered, and what is not any more."""

from __future__ import annotations

import time

from milvine.retrieval.remembered import Remembered


def remember(cache, version="r1", **values):
    """Put values into the cache, read just now."""
    for key, value in values.items():
        cache.put(key, version, value, read_at=time.monotonic())


def test_what_was_read_is_known():
    """A value is found by its key and version, and by no other."""
    cache = Remembered(fresh_s=60, capacity=9)
    remember(cache, ann=1)

    assert cache.get("ann", "r1") == 1
    assert cache.get("ann", "r2") is None
    assert cache.get("bob", "r1") is None


def test_old_values_are_read_anew():
    """A value is not found once its time is over, which began when it was read."""
    cache = Remembered(fresh_s=60, capacity=9)
    cache.put("ann", "r1", 1, read_at=time.monotonic() - 60)

    assert cache.get("ann", "r1") is None


def test_the_longest_unused_go():
    """Over its capacity, the cache lets go of what was not asked for the longest."""
    cache = Remembered(fresh_s=60, capacity=2)
    remember(cache, ann=1, bob=2)
    cache.get("ann", "r1")
    remember(cache, cy=3)

    assert cache.get("bob", "r1") is None
    assert cache.get("ann", "r1") == 1
    assert cache.get("cy", "r1") == 3
