"""What is remembered, and what is forgotten in time."""

from __future__ import annotations

from milvine.retrieval.remembered import Remembered


def remember(cache, version="r1", **values):
    """Read values into the cache."""
    with cache.reading(values.keys(), version) as read:
        read.update(values)


def test_what_was_read_is_known():
    """A value is found by its key and version, and by no other."""
    cache = Remembered(fresh_s=60, capacity=9)
    remember(cache, ann=1)

    assert cache.get("ann", "r1") == 1
    assert cache.get("ann", "r2") is None
    assert cache.get("bob", "r1") is None


def test_old_values_are_read_anew():
    """A value is not found once its time is over."""
    cache = Remembered(fresh_s=0, capacity=9)
    remember(cache, ann=1)

    assert cache.get("ann", "r1") is None


def test_what_is_written_is_forgotten():
    """A forgotten key is not found, and the others are."""
    cache = Remembered(fresh_s=60, capacity=9)
    remember(cache, ann=1, bob=2)
    cache.forget(["ann"])

    assert cache.get("ann", "r1") is None
    assert cache.get("bob", "r1") == 2


def test_a_write_during_a_read_wins():
    """What was being read when its key was written of is not kept; equal reads stay apart."""
    cache = Remembered(fresh_s=60, capacity=9)
    with cache.reading(["ann", "bob"], "r1") as first:
        cache.forget(["ann"])
        with cache.reading(["ann", "bob"], "r1") as second:
            second.update(ann=20, bob=20)
        first.update(ann=1, bob=2)

    assert cache.get("ann", "r1") == 20
    assert cache.get("bob", "r1") == 2


def test_the_longest_unused_go():
    """Over its capacity, the cache lets go of what was not asked for the longest."""
    cache = Remembered(fresh_s=60, capacity=2)
    remember(cache, ann=1, bob=2)
    cache.get("ann", "r1")
    remember(cache, cy=3)

    assert cache.get("bob", "r1") is None
    assert (cache.get("ann", "r1"), cache.get("cy", "r1")) == (1, 3)


def test_what_is_too_old_takes_no_memory():
    """Values whose time is over are let go of, though there is room for them."""
    cache = Remembered(fresh_s=0, capacity=9)
    remember(cache, ann=1)
    remember(cache, bob=2)

    assert not cache._entries
