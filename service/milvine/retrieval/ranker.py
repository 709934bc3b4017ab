"""Ranks items: what the stores say of them goes into boosts, and into the choice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import Side, to_micros
from milvine.domain.ranking import Factor, NumberDecay, TimeDecay
from milvine.retrieval.active import Active
from milvine.retrieval.columns import Columns
from milvine.retrieval.matching import MOST_AMONG, Matchings
from milvine.retrieval.plan import PlannedBoost, PlannedRanking
from milvine.retrieval.ranking import (
    NO_ROWS,
    Limit,
    Rows,
    Rules,
    Scores,
    Slate,
    boosted,
    choose,
    decayed,
    together,
)
from milvine.retrieval.reranking import Reranker
from milvine.retrieval.values import Values
from milvine.vectors import Vectors
from milvine.vectors.layout import directions

Factors: TypeAlias = NDArray[np.float64]
"""What scores are multiplied by, (n,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a request ranks by."""

    active: Active
    ranking: PlannedRanking
    moment: datetime
    """When it was asked, or its list's first page."""
    ends: float
    """Until when, by the monotonic clock, it may take."""
    shown: Rows = field(default_factory=NO_ROWS.copy)
    """The hits of earlier pages, in their order: they count as chosen."""
    explain: bool = False
    """Whether hits say their scores before boosts, and which boosts apply."""

    @property
    def timeout_s(self) -> float:
        """The seconds that are left."""
        return self.ends - time.monotonic()


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Items that were chosen, best first."""

    rows: Rows
    scores: Scores
    bases: Scores
    """(n,): the scores before boosts"""


@dataclass(frozen=True, slots=True, eq=False)
class _Effect:
    """What a boost does to some items."""

    applies: NDArray[np.bool_]
    """(n,)"""
    factor: float | NDArray[np.float64]
    """The same for all, or (n,)."""

    @property
    def factors(self) -> NDArray[np.float64]:
        """What it multiplies scores by, (n,): 1 where it does not apply."""
        return np.where(self.applies, self.factor, 1.0)


class Ranker:
    """Ranks items of releases."""

    def __init__(self, vectors: Vectors, matchings: Matchings, columns: Columns) -> None:
        self.reranker = Reranker()
        """Ranks by models whose scores are more than inner products, before all else."""
        self._vectors = vectors
        self._matchings = matchings
        self._columns = columns

    async def factors(self, asked: Asked, rows: Rows) -> Factors | None:
        """What all boosts multiply the scores of rows by, (n,); None where there are none."""
        effects = await self._effects(asked, rows)
        return together([effect.factors for effect in effects]) if effects else None

    async def choose(
        self, asked: Asked, slate: Slate, factors: Factors | None, count: int
    ) -> Ranked:
        """Choose the best of a slate after boosts, fewer than `count` where caps say so.

        Args:
            asked: What to rank by.
            slate: The items with their scores before boosts, those that were shown among them.
            factors: What boosts multiply the scores by, (n,) in the order of the slate.
            count: How many to choose.

        Raises:
            Unavailable: A store does not answer.
            DeadlineExceeded: It takes longer than the call allows.
        """
        caps = asked.ranking.caps
        values = await self._columns.read(
            asked.active,
            NO_ROWS,
            labels=[cap.field for cap in caps],
            timeout_s=asked.timeout_s,
        )
        rules = _rules(asked, values)
        return await asyncio.to_thread(_ranked, slate, factors, count, rules, asked.shown)

    async def applied(self, asked: Asked, rows: Rows) -> list[tuple[tuple[int, float], ...]]:
        """The boosts that apply to each row: the place of each, and the factor it comes to."""
        effects = await self._effects(asked, rows)
        factors = [effect.factors.tolist() for effect in effects]
        return [
            tuple((i, factors[i][at]) for i, one in enumerate(effects) if one.applies[at])
            for at in range(len(rows))
        ]

    async def _effects(self, asked: Asked, rows: Rows) -> list[_Effect]:
        boosts = asked.ranking.boosts
        values = await self._columns.read(
            asked.active,
            rows,
            numbers=[boost.field for boost in boosts if boost.field],
            timeout_s=asked.timeout_s,
        )
        applies = await asyncio.gather(
            *(self._applies(asked, boost.expression, rows) for boost in boosts)
        )
        return [
            _Effect(one, _factor(boost, values, asked.moment))
            for boost, one in zip(boosts, applies, strict=True)
        ]

    async def _applies(self, asked: Asked, expression: str, rows: Rows) -> NDArray[np.bool_]:
        """Which of some rows match, (n,)."""
        if not expression:
            return np.ones(len(rows), bool)
        active = asked.active
        matching = await self._matchings.of(active, expression, timeout_s=asked.timeout_s)
        if matching.pool is not None:
            return mask(active, matching.pool.rows)[rows]
        return mask(active, await self._matching_among(asked, expression, rows))[rows]

    async def _matching_among(self, asked: Asked, expression: str, rows: Rows) -> Rows:
        items = asked.active.served.items
        ids: list[str] = []
        for start in range(0, len(rows), MOST_AMONG):
            some = items.take(rows[start : start + MOST_AMONG])
            ids += await self._vectors.match(
                asked.active.layout(Side.ITEM).scores,
                expression=expression,
                among=some,
                limit=len(some),
                timeout_s=asked.timeout_s,
            )
        return items.rows(ids)


def _ranked(slate: Slate, factors: Factors | None, count: int, rules: Rules, shown: Rows) -> Ranked:
    scores = slate.scores if factors is None else boosted(slate.scores, factors)
    places = choose(Slate(slate.rows, scores), count, rules, shown)
    return Ranked(slate.rows[places], scores[places], slate.scores[places])


def _rules(asked: Asked, values: Values) -> Rules:
    served = asked.active.served

    def tastes(rows: Rows) -> NDArray[np.float32]:
        return directions(served.item_vectors[rows], served.taste_dimension)

    caps = asked.ranking.caps
    limits = [Limit(values.labels[cap.field.name], cap.most) for cap in caps]
    return Rules(tastes, asked.ranking.diversity, limits)


def _factor(boost: PlannedBoost, values: Values, moment: datetime) -> float | NDArray[np.float64]:
    match boost.kind:
        case Factor(value):
            return value
        case NumberDecay(name, origin, half):
            return decayed(values.numbers[name], origin, half)
        case TimeDecay(name, given, half_life):
            micros = half_life.total_seconds() * 1e6
            return decayed(values.numbers[name], to_micros(given or moment), micros)


def mask(active: Active, rows: Rows) -> NDArray[np.bool_]:
    """Which items of a release some rows are, (items,); rows of -1 are none."""
    found = np.zeros(len(active.served.items), bool)
    found[rows[rows >= 0]] = True
    return found
