"""Micro-batches: what is asked while its like is under way travels together.

A question goes at once where none of its kind is under way, so that a lone one never waits for
company; others gather until the batch before them is back, or so many wait that they go beside it.
The next batch leaves once none has joined it for some turns of the event loop: calls that come in
meanwhile, also from those who just got their answers, come along.
Questions that differ in how they have to be asked never share a batch. Lanes take turns, so that
one that asks much does not keep others waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from milvine.domain.errors import DeadlineExceeded, Unavailable

K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q")
A = TypeVar("A")

TURNS = 8
"""Through so many turns of the loop a call that has arrived comes to its first question. Batches of
64 callers had 21 questions so, and 9 where they left after so many turns whoever joined."""

MOST_TURNS = 8 * TURNS
"""No batch waits for longer, however many join it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Request(Generic[Q, A]):
    """Questions of one caller, answered together."""

    questions: Sequence[Q]
    answers: asyncio.Future[Sequence[A]]


@dataclass(slots=True)
class _Gathering(Generic[K]):
    """A kind whose next batch gathers."""

    lane: str
    key: K
    waiting: int = -1
    quiet_turns: int = 0
    turns: int = 0

    def goes_on(self, waiting: int) -> bool:
        """Whether one more turn may bring another, when so many wait."""
        self.quiet_turns = self.quiet_turns + 1 if waiting == self.waiting else 0
        self.waiting = waiting
        self.turns += 1
        return self.quiet_turns < TURNS and self.turns < MOST_TURNS


class Batches(Generic[K, Q, A]):
    """Asks questions of many callers together.

    A caller that is cancelled leaves its batch, if that is not under way; the others go on. Where
    a batch fails by what was asked, each of its requests is asked alone, so that one fails alone.
    """

    def __init__(
        self, ask: Callable[[K, Sequence[Q]], Awaitable[Sequence[A]]], *, slots: int, most: int
    ) -> None:
        """Batches of an asker.

        Args:
            ask: Answers questions of one key, in their order.
            slots: How many batches may be under way.
            most: A batch takes no further request once it has so many questions.
        """
        self._ask = ask
        self._free = slots
        self._most = most
        self._crowd = max(1, most // 4)
        """So many requests wait for no batch of their kind."""
        self._keys_under_way: Counter[K] = Counter()
        self._lanes: OrderedDict[str, OrderedDict[K, deque[_Request[Q, A]]]] = OrderedDict()
        self._under_way: set[asyncio.Task[None]] = set()
        self._gathering: set[K] = set()

    async def answers(self, lane: str, key: K, questions: Sequence[Q]) -> Sequence[A]:
        """The answers, in the order of the questions; raises what the asker raises."""
        if self._free and key not in self._keys_under_way and not self._waiting(lane, key):
            return await self._alone(lane, key, questions)
        request: _Request[Q, A] = _Request(questions, asyncio.get_running_loop().create_future())
        keys = self._lanes.setdefault(lane, OrderedDict())
        waiting = keys.setdefault(key, deque())
        waiting.append(request)
        if self._free and len(waiting) >= self._crowd:
            self._start()
        return await request.answers

    async def _alone(self, lane: str, key: K, questions: Sequence[Q]) -> Sequence[A]:
        self._begin(key)
        try:
            return await self._ask(key, questions)
        finally:
            self._end(lane, key)

    async def _run(self, lane: str, key: K, requests: Sequence[_Request[Q, A]]) -> None:
        try:
            await self._answer(key, requests)
        finally:
            self._end(lane, key)

    def _begin(self, key: K) -> None:
        self._free -= 1
        self._keys_under_way[key] += 1

    def _end(self, lane: str, key: K) -> None:
        self._free += 1
        self._keys_under_way[key] -= 1
        if not self._keys_under_way[key]:
            del self._keys_under_way[key]
        if self._lanes and key not in self._gathering:
            self._gathering.add(key)
            self._gather(_Gathering(lane, key))
        self._start()  # other kinds, which waited for a slot

    def _gather(self, gathering: _Gathering[K]) -> None:
        """Start once none of a kind joined those waiting for some turns of the loop."""
        if gathering.goes_on(self._waiting(gathering.lane, gathering.key)):
            asyncio.get_running_loop().call_soon(self._gather, gathering)
            return
        self._gathering.discard(gathering.key)
        self._start()

    def _waiting(self, lane: str, key: K) -> int:
        """How many requests of a kind wait."""
        keys = self._lanes.get(lane)
        return len(keys.get(key, ())) if keys else 0

    def _start(self) -> None:
        """Send what may go."""
        while self._free and (place := self._next()):
            key, requests = self._take(*place)
            if requests:
                self._begin(key)
                task = asyncio.create_task(self._run(place[0], key, requests))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    def _next(self) -> tuple[str, K] | None:
        """The oldest kind that may go, of the first lane in turn that has one."""
        for lane, keys in self._lanes.items():
            for key, waiting in keys.items():
                is_gathering = key in self._gathering
                is_busy = is_gathering or key in self._keys_under_way
                if not is_busy or len(waiting) >= (self._most if is_gathering else self._crowd):
                    return lane, key
        return None

    def _take(self, lane: str, key: K) -> tuple[K, list[_Request[Q, A]]]:
        """As many requests of a kind as may go together; lane and kind then stand at the end."""
        keys = self._lanes.pop(lane)
        waiting = keys.pop(key)
        requests: list[_Request[Q, A]] = []
        count = 0
        while waiting and count < self._most:
            request = waiting.popleft()
            if not request.answers.done():  # its caller still waits
                requests.append(request)
                count += len(request.questions)
        if waiting:
            keys[key] = waiting
        if keys:
            self._lanes[lane] = keys
        return key, requests

    async def _answer(self, key: K, requests: Sequence[_Request[Q, A]]) -> None:
        questions = [question for request in requests for question in request.questions]
        try:
            answers = await self._ask(key, questions)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is the callers'
            await self._fail(key, requests, fault)
            return
        start = 0
        for request in requests:
            end = start + len(request.questions)
            if not request.answers.done():
                request.answers.set_result(answers[start:end])
            start = end

    async def _fail(self, key: K, requests: Sequence[_Request[Q, A]], fault: Exception) -> None:
        if len(requests) > 1 and not isinstance(fault, (Unavailable, DeadlineExceeded)):
            for request in requests:
                await self._answer(key, [request])
            return
        for request in requests:
            if not request.answers.done():
                request.answers.set_exception(fault)
