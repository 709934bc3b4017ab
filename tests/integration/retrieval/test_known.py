"""What is known of all items of a release."""

from __future__ import annotations

import asyncio
import time
from dataclasses import fields, replace

import pytest

from milvine.domain.release import Release
from milvine.retrieval import known
from milvine.retrieval.active import Active
from milvine.retrieval.known import Known
from milvine.retrieval.longest_first import LongestFirst
from milvine.retrieval.matching import Matchings

TIMEOUT_S = 20.0


@pytest.fixture
def items(stores):
    """What is known of releases: nothing yet."""
    return Known(Matchings(stores.vectors))


async def found(items: Known, active: Active) -> LongestFirst:
    """All items, once they were looked up."""
    async with asyncio.timeout(TIMEOUT_S):
        # The look-up tells nobody when it ends.
        while (all_items := items.of(active)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return all_items


async def test_all_items_are_known_once_they_were_looked_up(stores, items, active, monkeypatch):
    """Nobody waits: who asks a while after the last change starts the look-up."""
    monkeypatch.setattr(known, "QUIET_S", 0.0)
    spec = active.layout("item").scores
    ids = await stores.vectors.match(spec, expression="", limit=9_999, timeout_s=TIMEOUT_S)

    assert items.of(active) is None
    assert (await found(items, active)).pool.rows.tolist() == sorted(
        active.served.items.rows(ids).tolist()
    )
    assert items.of(replace(active, revision=active.revision + 1)) is None


async def test_items_that_change_all_the_time_are_not_looked_up(items, active, monkeypatch):
    """However long it goes on, nothing is asked of the store for a revision that was just seen."""
    monkeypatch.setattr(known, "QUIET_S", 0.2)
    began = time.monotonic()
    revision = 0
    while time.monotonic() - began < 3 * known.QUIET_S:
        revision += 1
        for _ in range(2):
            assert items.of(replace(active, revision=revision)) is None
        await asyncio.sleep(0)

    assert not items._looks
    assert not any(entry.is_looked_up for entry in items._entries.values())


async def test_a_failed_look_up_is_not_repeated_at_once(items, active, monkeypatch):
    """It is made again when the items have been quiet for as long once more."""
    monkeypatch.setattr(known, "QUIET_S", 0.1)
    monkeypatch.setattr(known, "LOOK_S", 0.0)  # no look-up is as fast
    async with asyncio.timeout(TIMEOUT_S):
        while not items._looks:
            assert items.of(active) is None
            await asyncio.sleep(0)
        while items._looks:  # noqa: ASYNC110
            await asyncio.sleep(0)

    assert items.of(active) is None
    assert not items._looks
    monkeypatch.setattr(known, "LOOK_S", TIMEOUT_S)
    assert await found(items, active)


async def test_the_items_of_the_longest_unused_release_are_forgotten(items, active, monkeypatch):
    """Each takes as much memory as its vectors, and all of them no more than there is."""
    monkeypatch.setattr(known, "QUIET_S", 0.0)
    before = await found(items, active)
    monkeypatch.setattr(known, "MOST_BYTES", 2 * before.nbytes)
    others = [replace(active, release=_other(active.release, number)) for number in range(2)]
    assert [await found(items, other) for other in others]

    assert [items.of(other) is not None for other in others] == [True, True]
    assert items.of(active) is None


async def test_releases_that_are_asked_in_turn_are_all_known(items, active, monkeypatch):
    """However many they are, each is quiet since it last changed."""
    monkeypatch.setattr(known, "QUIET_S", 0.05)
    releases = [replace(active, release=_other(active.release, number)) for number in range(20)]
    async with asyncio.timeout(TIMEOUT_S):
        while None in [items.of(release) for release in releases]:  # noqa: ASYNC110
            await asyncio.sleep(0)


def _other(release: Release, number: int) -> Release:
    """A release of another id that has the same collections."""

    class Other(Release):
        _build = release._build

    values = {field.name: getattr(release, field.name) for field in fields(release)}
    return Other(**{**values, "id": f"{release.id}-{number}"})
