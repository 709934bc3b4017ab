"""What is kept of look-ups of filters."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from milvine.domain.errors import DeadlineExceeded, MilvineError
from milvine.retrieval import matching
from milvine.retrieval.matching import Matchings

TIMEOUT_S = 20.0
EARLY = "_has_year == true and year < 1980"


async def test_callers_share_a_look_up(stores, active):
    """Who asks while a look-up is under way, or later, gets what it found."""
    matchings = Matchings(stores.vectors)

    found = await asyncio.gather(
        *(matchings.of(active, EARLY, timeout_s=TIMEOUT_S) for _ in range(5))
    )
    later = await matchings.of(active, EARLY, timeout_s=TIMEOUT_S)

    assert {id(one) for one in (*found, later)} == {id(later)}


@pytest.mark.parametrize("text", ["", EARLY, f"not ({EARLY})"])
async def test_rows_ascend_and_match(stores, active, text):
    """The rows are those of the matching ids, whichever side of the filter was looked up."""
    if text.startswith("not") and not stores.vectors.dialect.negates_calls:
        pytest.skip("this store has no `not`")
    found = await Matchings(stores.vectors).of(active, text, timeout_s=TIMEOUT_S)
    spec = active.layout("item").scores
    ids = await stores.vectors.match(spec, expression=text, limit=9_999, timeout_s=TIMEOUT_S)

    assert found.pool.rows.tolist() == sorted(active.served.items.rows(ids).tolist())
    assert found.count == len(ids)


async def test_a_new_revision_is_looked_up_anew(stores, active, monkeypatch):
    """Where the release has followed changes, what was found before is not used."""
    monkeypatch.setattr(matching, "STALE_S", 0.0)
    matchings = Matchings(stores.vectors)
    before = await matchings.of(active, EARLY, timeout_s=TIMEOUT_S)

    after = await matchings.of(
        replace(active, revision=active.revision + 1), EARLY, timeout_s=TIMEOUT_S
    )

    assert after is not before


async def test_nobody_waits_for_news_of_what_is_in_use(stores, active):
    """What was up to date a moment ago serves while it is looked up anew, and then no more."""
    matchings = Matchings(stores.vectors)
    before = await matchings.of(active, EARLY, timeout_s=TIMEOUT_S)
    changed = replace(active, revision=active.revision + 1)

    assert await matchings.of(changed, EARLY, timeout_s=TIMEOUT_S) is before
    async with asyncio.timeout(TIMEOUT_S):
        # Each call may answer at once, so that the look-up needs room to run.
        while await matchings.of(changed, EARLY, timeout_s=TIMEOUT_S) is before:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_what_was_found_early_is_looked_up_once_more(stores, active, monkeypatch):
    """A read may miss the latest writes, so the first look at a revision is not the last."""
    monkeypatch.setattr(matching, "STALE_S", 0.0)
    monkeypatch.setattr(matching, "SETTLED_S", 0.1)
    matchings = Matchings(stores.vectors)
    first = await matchings.of(active, EARLY, timeout_s=TIMEOUT_S)

    async with asyncio.timeout(TIMEOUT_S):
        while (second := await matchings.of(active, EARLY, timeout_s=TIMEOUT_S)) is first:
            pass
    monkeypatch.setattr(matching, "SETTLED_S", 0.0)  # as if it were long ago

    assert await matchings.of(active, EARLY, timeout_s=TIMEOUT_S) is second


async def test_a_failed_look_up_leaves_nothing(stores, active):
    """Each caller is told, and the next one looks anew."""
    matchings = Matchings(stores.vectors)
    with pytest.raises(MilvineError):
        await matchings.of(active, "no_such_column > 1", timeout_s=TIMEOUT_S)
    with pytest.raises(MilvineError):
        await matchings.of(active, "no_such_column > 1", timeout_s=TIMEOUT_S)


async def test_a_short_deadline_ends_the_wait_and_not_the_look_up(stores, active):
    """Who can't wait is told so; what was looked up is there for the next."""
    matchings = Matchings(stores.vectors)
    with pytest.raises(DeadlineExceeded):
        await matchings.of(active, EARLY, timeout_s=0.0)

    assert (await matchings.of(active, EARLY, timeout_s=TIMEOUT_S)).count


async def test_what_is_kept_has_a_bound(stores, active, monkeypatch):
    """Over the bound the longest unused filter goes first."""
    matchings = Matchings(stores.vectors)
    filters = [f"year < {year}" for year in range(1972, 1978)]
    first = await matchings.of(active, filters[0], timeout_s=TIMEOUT_S)
    monkeypatch.setattr(matching, "MOST_BYTES", 4 * first.pool.nbytes)
    found = [await matchings.of(active, text, timeout_s=TIMEOUT_S) for text in filters[1:]]

    assert await matchings.of(active, filters[-1], timeout_s=TIMEOUT_S) is found[-1]
    assert await matchings.of(active, filters[0], timeout_s=TIMEOUT_S) is not first


async def test_too_many_matches_are_only_counted(stores, active, monkeypatch):
    """Over MOST_SCORED there are no rows."""
    spec = active.layout("item").scores
    count = await stores.vectors.count_matching(spec, EARLY, timeout_s=TIMEOUT_S)
    monkeypatch.setattr(matching, "MOST_SCORED", count - 1)

    found = await Matchings(stores.vectors).of(active, EARLY, timeout_s=TIMEOUT_S)

    assert found.count == count
    assert found.pool is None
