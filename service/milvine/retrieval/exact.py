"""Exact searches: scored here, with the store's last word on what may be found.

What is scored are items that matched a moment ago, or all that the model knows. So the best are
looked up by their ids: those that the store does not have, or that match no more, give way to the
next ones. The same look-up brings the fields to return. Where neither a filter nor fields are asked
for and no item has changed since all were looked up, that is known already.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from milvine.domain.catalog import Field
from milvine.domain.entity import FieldValue
from milvine.domain.hit import Found, SearchMethod
from milvine.retrieval.batches import Batches
from milvine.retrieval.known import Known
from milvine.retrieval.longest_first import LongestFirst
from milvine.retrieval.matching import Matchings
from milvine.retrieval.scoring import QUICK, Best, Pool, Question, Scorer
from milvine.vectors import CollectionSpec, Vectors

MARGIN = 4
"""How many more than asked for are looked up, and an eighth of what is asked for besides."""
_WIDER = 4
CHECKS = 2
"""Look-ups under way."""
MOST_CHECKED = 32
"""A look-up takes no further request once it has so many."""

_Live: TypeAlias = Mapping[str, Mapping[str, FieldValue]]
"""The fields of items by id."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What was found for one query."""

    found: Found
    """Best first; with the fields to return where the search brought them."""
    is_all: bool
    """Whether no more match."""
    method: SearchMethod


@dataclass(frozen=True, slots=True)
class Check:
    """What is found has to be in a collection and match; look-ups that agree in it can be one."""

    spec: CollectionSpec
    expression: str
    fields: tuple[Field, ...]
    """The fields to return."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ids:
    ids: frozenset[str]
    ends: float


class Exact:
    """What the exact searches of all requests share."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.matchings = Matchings(vectors)
        self.known = Known(self.matchings)
        self.scorer = Scorer()
        self._checks: Batches[Check, _Ids, _Live] = Batches(
            self._check, slots=CHECKS, most=MOST_CHECKED
        )

    async def best_known(
        self, lane: str, known: LongestFirst, questions: Sequence[Question]
    ) -> list[Candidates]:
        """The best for each question of the items of which is known that the store has them."""
        most = QUICK // len(questions)  # done at once, on the event loop
        answers = {i: known.best(question, most=most) for i, question in enumerate(questions)}
        if hard := {i: questions[i] for i, best in answers.items() if best is None}:
            answers |= await asyncio.to_thread(_with_more_work, known, hard)
        if left := {i: questions[i] for i, best in answers.items() if best is None}:
            found = await self.scorer.best(lane, known.pool, list(left.values()))
            answers |= dict(zip(left, found, strict=True))
        return [
            Candidates(Found(best.ids, best.scores), best.is_all, SearchMethod.EXACT)
            for best in answers.values()
            if best is not None
        ]

    async def best(
        self, lane: str, pool: Pool, questions: Sequence[Question], check: Check, *, ends: float
    ) -> list[Candidates]:
        """The best of a pool for each question that pass a check, until `ends`, monotonic."""
        answers: dict[int, Candidates] = {}
        left, wider = dict(enumerate(questions)), 1
        while left:
            asked = [_with_margin(question, wider) for question in left.values()]
            found = await self.scorer.best(lane, pool, asked)
            ids = _Ids(frozenset(id_ for best in found for id_ in best.ids), ends)
            (live,) = await self._checks.answers(lane, check, [ids]) if ids.ids else ({},)
            for (i, question), best in zip(list(left.items()), found, strict=True):
                passed = _passed(best, live, question.count, has_fields=bool(check.fields))
                if best.is_all or len(passed.found) == question.count:
                    answers[i] = passed
                    del left[i]
            wider *= _WIDER
        return [answers[i] for i in range(len(questions))]

    async def _check(self, check: Check, questions: Sequence[_Ids]) -> Sequence[_Live]:
        rows = await self._vectors.fetch(
            check.spec,
            sorted(frozenset[str]().union(*(question.ids for question in questions))),
            expression=check.expression,
            fields=check.fields,
            timeout_s=max(question.ends for question in questions) - time.monotonic(),
        )
        return [{row.id: row.fields for row in rows}] * len(questions)


def _with_more_work(
    known: LongestFirst, questions: Mapping[int, Question]
) -> dict[int, Best | None]:
    half = len(known.pool) * known.vectors.shape[1] // 2  # more is done faster all at once
    return {i: known.best(question, most=half) for i, question in questions.items()}


def _with_margin(question: Question, wider: int) -> Question:
    margin = MARGIN + question.count // 8
    return replace(question, count=wider * (question.count + margin))


def _passed(best: Best, live: _Live, count: int, *, has_fields: bool) -> Candidates:
    places = [place for place, id_ in enumerate(best.ids) if id_ in live]
    ids = [best.ids[place] for place in places[:count]]
    scores = [best.scores[place] for place in places[:count]]
    found = Found(ids, scores, [live[id_] for id_ in ids] if has_fields else ())
    return Candidates(found, best.is_all and len(places) <= count, SearchMethod.EXACT)
