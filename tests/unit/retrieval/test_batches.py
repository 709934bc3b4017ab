"""Micro-batches: who travels with whom, and who is left alone."""

from __future__ import annotations

import asyncio

import pytest

from milvine.domain.errors import InvalidArgument, Reason, Unavailable
from milvine.retrieval.batches import MOST_TURNS, TURNS, Batches


class Store:
    """Answers after it is let go; remembers what travelled together."""

    def __init__(self):
        self.batches: list[tuple[str, list[object]]] = []
        self.gate = asyncio.Event()
        self.is_away = False

    async def ask(self, key, questions):
        self.batches.append((key, list(questions)))
        await self.gate.wait()
        if self.is_away:
            raise Unavailable("away", Reason.VECTORS_UNAVAILABLE)
        if "bad" in questions:
            raise InvalidArgument.at("vector", "is bad")
        return [f"{key}:{question}" for question in questions]


@pytest.fixture
async def store():
    """A store of one slot."""
    return Store()


@pytest.fixture
async def batches(store):
    """Batches for the store: one under way, of four questions."""
    return Batches(store.ask, slots=1, most=4)


async def settle():
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def ask(batches, *questions, key="a", lane="shop"):
    """Ask as a caller of its own."""
    return asyncio.ensure_future(batches.answers(lane, key, questions))


async def test_a_lone_question_goes_at_once(store, batches):
    """Where a slot is free, nobody waits for company."""
    first = ask(batches, 1)
    await settle()

    assert store.batches == [("a", [1])]
    store.gate.set()
    assert await first == ["a:1"]


async def test_what_waits_travels_together(store, batches):
    """Questions that come while the slot is busy are one batch, and each gets its own answers."""
    calls = [ask(batches, 0)]
    await settle()
    calls += [ask(batches, 1), ask(batches, 2, 3)]
    await settle()
    store.gate.set()

    assert await asyncio.gather(*calls) == [["a:0"], ["a:1"], ["a:2", "a:3"]]
    assert [questions for _, questions in store.batches] == [[0], [1, 2, 3]]


async def test_who_comes_right_after_a_batch_joins_the_next(store, batches):
    """Callers who ask again with the answer in hand travel with those who waited for the batch."""

    async def ask_twice():
        await batches.answers("shop", "a", [1])
        return await batches.answers("shop", "a", [3])

    first = asyncio.ensure_future(ask_twice())
    await settle()
    second = ask(batches, 2)
    await settle()
    store.gate.set()
    await asyncio.gather(first, second)

    assert store.batches == [("a", [1]), ("a", [2, 3])]


async def test_the_next_batch_leaves_when_nobody_joins_any_more(store):
    """Callers who come one after the other, some turns of the loop apart, are one batch."""
    batches = Batches(store.ask, slots=1, most=400)
    calls = [ask(batches, 0)]
    await settle()
    calls.append(ask(batches, 1))
    await settle()
    store.gate.set()
    for number in range(2, 12):
        for _ in range(TURNS // 2):
            await asyncio.sleep(0)
        calls.append(ask(batches, number))

    await asyncio.gather(*calls)

    assert [questions for _, questions in store.batches] == [[0], list(range(1, 12))]


async def test_no_batch_gathers_for_ever(store):
    """Where callers keep coming, it leaves with those who came in so many turns of the loop."""
    batches = Batches(store.ask, slots=1, most=4_000)
    calls = [ask(batches, 0)]
    await settle()
    calls.append(ask(batches, 1))
    await settle()
    store.gate.set()
    for number in range(2, 3 * MOST_TURNS):
        await asyncio.sleep(0)
        calls.append(ask(batches, number))

    await asyncio.gather(*calls)

    assert len(store.batches[1][1]) <= MOST_TURNS + 10


async def test_gathering_holds_no_other_kind_up(store):
    """A kind that waited for the slot alone goes as soon as it is free."""
    batches = Batches(store.ask, slots=1, most=400)
    calls = [ask(batches, 0)]
    await settle()
    calls += [ask(batches, 1), ask(batches, 2, key="b")]
    await settle()
    store.gate.set()

    await asyncio.gather(*calls)

    assert store.batches == [("a", [0]), ("b", [2]), ("a", [1])]


async def test_batches_have_a_size(store, batches):
    """A batch takes no further request once it is full; the rest goes next."""
    calls = [ask(batches, 0)]
    await settle()
    calls += [ask(batches, n, n) for n in (1, 2, 3)]
    store.gate.set()
    await asyncio.gather(*calls)

    assert [questions for _, questions in store.batches] == [[0], [1, 1, 2, 2], [3, 3]]


async def test_other_ways_to_ask_travel_apart(store, batches):
    """Questions of different keys never share a batch."""
    calls = [ask(batches, 0)]
    await settle()
    calls += [ask(batches, 1), ask(batches, 2, key="b"), ask(batches, 3)]
    store.gate.set()

    assert await asyncio.gather(*calls) == [["a:0"], ["a:1"], ["b:2"], ["a:3"]]
    assert store.batches == [("a", [0]), ("b", [2]), ("a", [1, 3])]


async def test_only_its_like_keeps_a_question_waiting(store):
    """Beside free slots, a question waits for the batch of its kind, and for no other."""
    batches = Batches(store.ask, slots=3, most=8)
    calls = [ask(batches, 0), ask(batches, 1), ask(batches, 2, key="b")]
    await settle()

    assert store.batches == [("a", [0]), ("b", [2])]
    store.gate.set()
    assert await asyncio.gather(*calls) == [["a:0"], ["a:1"], ["b:2"]]


async def test_a_crowd_does_not_wait(store):
    """Where a quarter of a batch waits, it goes beside the one under way, while a slot is free."""
    batches = Batches(store.ask, slots=2, most=8)
    calls = [ask(batches, n) for n in range(5)]
    await settle()

    assert store.batches == [("a", [0]), ("a", [1, 2])]
    store.gate.set()
    assert await asyncio.gather(*calls) == [[f"a:{n}"] for n in range(5)]


async def test_lanes_take_turns(store, batches):
    """A lane that asks a lot waits for one batch of another lane, not the other way round."""
    calls = [ask(batches, 0)]
    await settle()
    calls += [ask(batches, n, n, n, n) for n in range(1, 5)]
    calls += [ask(batches, "quick", lane="other")]
    store.gate.set()
    await asyncio.gather(*calls)

    assert [questions[0] for _, questions in store.batches].index("quick") <= 2


async def test_who_gave_up_is_left_behind(store, batches):
    """A cancelled caller's question is not asked, and hinders no other."""
    first = ask(batches, 0)
    await settle()
    gone, stays = ask(batches, 1), ask(batches, 2)
    await settle()
    gone.cancel()
    store.gate.set()

    assert await stays == ["a:2"]
    await first
    assert [questions for _, questions in store.batches] == [[0], [2]]


async def test_who_gives_up_under_way_harms_no_other(store, batches):
    """A caller may leave while its batch is under way; the others get their answers."""
    calls = [ask(batches, 0)]
    await settle()
    calls += [ask(batches, 1), ask(batches, 2)]
    await settle()
    calls[0].cancel()
    store.gate.set()

    assert await asyncio.gather(*calls[1:]) == [["a:1"], ["a:2"]]


async def test_one_bad_question_fails_alone(store, batches):
    """What one caller asked wrongly is not told to the others of its batch."""
    calls = [ask(batches, 0)]
    await settle()
    calls += [ask(batches, 1), ask(batches, "bad"), ask(batches, 2)]
    store.gate.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert answers[:2] + answers[3:] == [["a:0"], ["a:1"], ["a:2"]]
    assert isinstance(answers[2], InvalidArgument)


async def test_an_absent_store_is_asked_once(store, batches):
    """Where the store is away, each caller of a batch is told so, without another try."""
    calls = [ask(batches, 0)]
    await settle()
    calls += [ask(batches, 1), ask(batches, 2)]
    store.is_away = True
    store.gate.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert len(store.batches) == 2
