"""Secrets that processes share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from milvine.records import Records


def test_a_secret_is_made_once(empty):
    """A name has one secret of 256 bits, another name another."""
    first = empty.keys.get("a")

    assert empty.keys.get("a") == first
    assert empty.keys.get("b") != first
    assert len(first) == 32


def test_processes_that_ask_first_together_get_the_same(url):
    """Whoever comes first makes the secret; the others get that one."""
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda _: Records.open(url), range(8)))
        found = set(threads.map(lambda records: records.keys.get("a"), opened))
    for records in opened:
        records.close()

    assert len(found) == 1
