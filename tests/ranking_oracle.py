"""What a ranking means, in plain Python: the oracle of the property tests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from milvine.domain.catalog import Field
from milvine.domain.entity import FieldValue
from milvine.domain.ranking import Boost, Factor, NumberDecay, Ranking, TimeDecay
from milvine.filters import parse
from tests.filter_oracle import evaluate

SLACK = 1e-4
"""Hits that are worth as much, but for so much, may change places: stores score in float32."""


@dataclass(frozen=True)
class Ranked:
    """The items that a request may find, and how it ranks them."""

    declared: Sequence[Field]
    fields: Mapping[str, Mapping[str, FieldValue]]
    """Of each item; without those that are filtered out, seen or excluded."""
    directions: Mapping[str, np.ndarray]
    ranking: Ranking
    moment: datetime
    bases: Mapping[str, float]
    """The score of each item before boosts."""

    def factor(self, boost: Boost, id_: str) -> float | None:
        """What a boost multiplies the score of an item by; None where it does not apply."""
        fields = self.fields[id_]
        if not evaluate(parse(boost.filter, boost.filter_params, self.declared), fields):
            return None
        match boost.kind:
            case Factor(value):
                return value
            case NumberDecay(name, origin, half):
                return 0.5 ** (abs(fields[name] - origin) / half) if name in fields else 1.0
            case TimeDecay(name, origin, half_life):
                if name not in fields:
                    return 1.0
                return 0.5 ** (abs(fields[name] - (origin or self.moment)) / half_life)

    def score(self, id_: str) -> float:
        """The score of an item after boosts."""
        factors = [self.factor(boost, id_) for boost in self.ranking.boosts]
        product = math.prod(factor for factor in factors if factor is not None)
        base = self.bases[id_]
        return base / product if base < 0 else base * product

    def allowed(self, chosen: Sequence[str]) -> list[str]:
        """The items that no cap rules out after some hits."""
        had = {
            cap.field: Counter(value for hit in chosen for value in self.values(hit, cap.field))
            for cap in self.ranking.caps
        }
        return [
            id_
            for id_ in self.fields
            if id_ not in chosen
            and all(
                had[cap.field][value] < cap.most
                for cap in self.ranking.caps
                for value in self.values(id_, cap.field)
            )
        ]

    def values(self, id_: str, field: str) -> Collection[FieldValue]:
        """The distinct values of a field, or of its list."""
        value = self.fields[id_].get(field)
        if value is None:
            return ()
        return set(value) if isinstance(value, tuple) else (value,)

    def check(self, hits: Sequence[tuple[str, float]], count: int) -> None:
        """Assert that hits are what the greedy choice gives, and as many as there can be."""
        scores = {id_: self.score(id_) for id_ in self.fields}
        order = sorted(scores, key=lambda id_: -scores[id_])
        diversity = self.ranking.diversity
        window = order[: diversity.candidates] if diversity else []
        low, high = (scores[window[-1]], scores[window[0]]) if window else (0, 0)
        chosen: list[str] = []
        for id_, score in hits:
            allowed = self.allowed(chosen)
            assert id_ in allowed, f"{id_} is ruled out"
            assert abs(score - scores[id_]) <= SLACK * max(1e-3, abs(scores[id_]))
            near = [one for one in allowed if one in window]
            if near:
                worth = {one: self.worth(scores[one], low, high, one, chosen) for one in near}
            else:
                size = max(1e-9, *(abs(scores[one]) for one in allowed))
                worth = {one: scores[one] / size for one in allowed}
            assert worth.get(id_, -math.inf) >= max(worth.values()) - SLACK
            chosen.append(id_)
        assert len(hits) == count or not self.allowed(chosen)

    def worth(
        self, score: float, low: float, high: float, id_: str, chosen: Sequence[str]
    ) -> float:
        """What an item is worth by maximal marginal relevance."""
        scaled = (score - low) / (high - low) if high > low else 0.0
        cosines = [float(self.directions[id_] @ self.directions[hit]) for hit in chosen]
        relevance = self.ranking.diversity.relevance
        return relevance * scaled - (1 - relevance) * max(cosines, default=0.0)
