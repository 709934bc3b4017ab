"""Micro-batches: what is asked while every slot is busy travels together.

A batch forms only when a slot is free, of all that waits then, so that a lone question never waits
for company. Questions that differ in how they have to be asked never share a batch. Lanes take
turns, so that one that asks much does not keep others waiting.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from milvine.domain.errors import DeadlineExceeded, Unavailable

K = TypeVar("K", bound=Hashable)
Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(frozen=True, slots=True, eq=False)
class _Request(Generic[Q, A]):
    """Questions of one caller, answered together."""

    questions: Sequence[Q]
    answers: asyncio.Future[Sequence[A]]


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
        self._lanes: OrderedDict[str, OrderedDict[K, deque[_Request[Q, A]]]] = OrderedDict()
        self._under_way: set[asyncio.Task[None]] = set()

    async def answers(self, lane: str, key: K, questions: Sequence[Q]) -> Sequence[A]:
        """The answers, in the order of the questions; raises what the asker raises."""
        if self._free:  # then nobody waits
            return await self._alone(key, questions)
        request: _Request[Q, A] = _Request(questions, asyncio.get_running_loop().create_future())
        keys = self._lanes.setdefault(lane, OrderedDict())
        keys.setdefault(key, deque()).append(request)
        return await request.answers

    async def _alone(self, key: K, questions: Sequence[Q]) -> Sequence[A]:
        self._free -= 1
        try:
            return await self._ask(key, questions)
        finally:
            self._free += 1
            self._start()

    def _start(self) -> None:
        while self._free and self._lanes:
            key, requests = self._next()
            if not requests:
                continue
            self._free -= 1
            task = asyncio.create_task(self._run(key, requests))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    def _next(self) -> tuple[K, list[_Request[Q, A]]]:
        """The oldest key of the lane whose turn it is, with as many of its requests as may go."""
        lane, keys = self._lanes.popitem(last=False)
        key, waiting = keys.popitem(last=False)
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

    async def _run(self, key: K, requests: Sequence[_Request[Q, A]]) -> None:
        try:
            await self._answer(key, requests)
        finally:
            self._free += 1
            self._start()

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
