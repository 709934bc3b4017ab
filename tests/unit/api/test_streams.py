"""Streams whose elements are prepared while others are used."""

from __future__ import annotations

import asyncio

import pytest

from milvine.api.streams import gathered


async def numbers(count, made):
    """Yield numbers without ever waiting, and keep what was made."""
    for number in range(count):
        made.append(number)
        yield number


async def settled():
    """Let every other task run as far as it can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_gathers_what_is_ready():
    """Each element comes once and in order; those that wait come together, as many as may."""
    made, found = [], []
    async for some in gathered(numbers(10, made), most=4):
        found.append(some)
        await settled()
    assert [n for some in found for n in some] == made == list(range(10))
    assert max(map(len, found)) == 4


async def test_prepares_no_more_than_it_may():
    """While some are used, others are prepared, so many, and one that waits for its place."""
    made = []
    groups = gathered(numbers(100, made), most=4)
    used = len(await anext(groups))
    await settled()
    assert len(made) == used + 4 + 1
    used += len(await anext(groups))
    await settled()
    assert len(made) == used + 4 + 1
    await groups.aclose()


async def test_an_error_comes_last():
    """What came before an error is given first."""

    async def source():
        yield 1
        yield 2
        raise ValueError("broken")

    groups = gathered(source(), most=4)
    assert await anext(groups) == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        await anext(groups)


async def test_closing_ends_the_source():
    """A reader who leaves ends what is being prepared."""
    ended = asyncio.Event()

    async def source():
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.set()

    groups = gathered(source(), most=4)
    assert await anext(groups) == [1]
    await groups.aclose()
    assert ended.is_set()


async def test_an_empty_source_gives_nothing():
    """There are no empty groups."""
    assert [some async for some in gathered(numbers(0, []), most=4)] == []
