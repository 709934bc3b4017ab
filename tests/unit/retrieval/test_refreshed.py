"""Values that are made anew behind the requests that use them."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass

import pytest

from milvine.domain.errors import DeadlineExceeded, LimitReached, Reason, Unavailable
from milvine.retrieval.refreshed import REST, Refreshed

PLENTY_S = 10.0


@dataclass
class Clock:
    """Tells the time that it is set to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Maker:
    """Makes 1, 2, 3 and so on; can be held up, take its time, or fail."""

    def __init__(self, clock: Clock) -> None:
        self.numbers = itertools.count(1)
        self.takes_s = 0.0
        self.fault: Exception | None = None
        self.under_way = 0
        self.most_under_way = 0
        self.may_end = threading.Event()
        self.may_end.set()
        self._clock = clock

    def __call__(self) -> int:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        assert self.may_end.wait(PLENTY_S)
        self.under_way -= 1
        self._clock.now += self.takes_s
        if self.fault:
            raise self.fault
        return next(self.numbers)


@pytest.fixture
def clock():
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def maker(clock):
    """A maker that holds up no thread once the test has ended."""
    made = Maker(clock)
    yield made
    made.may_end.set()


@pytest.fixture
def values(clock):
    """Values that are good for ten seconds; three at most."""
    return Refreshed(least_s=10, capacity=3, clock=clock)


def get(values, maker, key="a", timeout_s=PLENTY_S):
    """Ask as a caller of its own."""
    return asyncio.ensure_future(values.get(key, maker, timeout_s=timeout_s))


async def until(condition):
    """Wait for a condition."""
    deadline = time.monotonic() + PLENTY_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def made_anew(values, maker):
    """The value after the one that is asked for."""
    await get(values, maker)
    await until(lambda: not values.is_busy)
    return await get(values, maker)


async def test_a_value_is_made_once(values, maker, clock):
    """Requests at the same time share one making, and later ones its value."""
    assert await asyncio.gather(*(get(values, maker) for _ in range(5))) == [1] * 5
    clock.now += 9
    assert await get(values, maker) == 1
    assert await get(values, maker, "b") == 2


async def test_an_old_value_is_given_while_the_new_one_is_made(values, maker, clock):
    """Nobody waits for a value to be made anew, which it is once."""
    await get(values, maker)
    clock.now += 11
    maker.may_end.clear()

    assert [await get(values, maker) for _ in range(3)] == [1] * 3
    await until(lambda: maker.under_way)
    maker.may_end.set()
    assert await made_anew(values, maker) == 2
    assert next(maker.numbers) == 3


async def test_a_value_that_nobody_asked_for_is_waited_for(values, maker, clock):
    """What is much too old is not given."""
    await get(values, maker)
    clock.now += 21

    assert await get(values, maker) == 2


async def test_what_takes_long_is_made_less_often(values, maker, clock):
    """A value rests for a multiple of the time that it takes."""
    maker.takes_s = 3.0
    await get(values, maker)
    clock.now += 3 * REST - 1
    assert await get(values, maker) == 1
    clock.now += 2
    assert await get(values, maker) == 1
    assert await made_anew(values, maker) == 2


@pytest.mark.parametrize("age_s", [11, 21])
async def test_where_it_fails_the_old_value_stays(values, maker, clock, age_s):
    """A failure is not the request's where there is an older value, and is not tried each time."""
    await get(values, maker)
    clock.now += age_s
    maker.fault = Unavailable("away", Reason.RECORDS_UNAVAILABLE)

    assert await get(values, maker) == 1
    await until(lambda: not values.is_busy)
    maker.fault = None
    assert await get(values, maker) == 1
    await settle()
    assert not values.is_busy
    clock.now += 11
    assert await made_anew(values, maker) == 2


async def test_without_an_older_value_the_failure_is_told(values, maker):
    """All who wait are told, and the next one tries again."""
    maker.fault = Unavailable("away", Reason.RECORDS_UNAVAILABLE)
    waiting = [get(values, maker) for _ in range(2)]
    for one in waiting:
        with pytest.raises(Unavailable):
            await one
    maker.fault = None
    assert await get(values, maker) == 1


async def test_a_request_waits_as_long_as_it_may(values, maker, clock):
    """The deadline ends the wait, not the making: its value is there for the next one."""
    maker.may_end.clear()
    with pytest.raises(DeadlineExceeded):
        await get(values, maker, timeout_s=0.01)
    gone = get(values, maker)
    await settle()
    gone.cancel()
    maker.may_end.set()
    assert await get(values, maker) == 1
    maker.may_end.clear()
    clock.now += 21
    assert await get(values, maker, timeout_s=0.01) == 1
    maker.may_end.set()


async def test_one_is_made_at_a_time(values, maker):
    """Values of several keys wait for each other."""
    await asyncio.gather(*(get(values, maker, key) for key in "abc"))
    assert maker.most_under_way == 1


async def test_there_is_an_end_to_what_is_made(values, maker):
    """More keys than there is room for are refused while the others are being made."""
    maker.may_end.clear()
    waiting = [get(values, maker, key) for key in "abc"]
    await settle()
    with pytest.raises(LimitReached, match="3 different"):
        await get(values, maker, "d")
    maker.may_end.set()
    await asyncio.gather(*waiting)
    assert await get(values, maker, "d") == 4


async def test_the_longest_unused_goes(values, maker):
    """There is room for three: what was asked for last stays."""
    for key in "abcad":
        await get(values, maker, key)
    assert [await get(values, maker, key) for key in "acd"] == [1, 3, 4]
    assert await get(values, maker, "b") == 5


async def settle():
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)
