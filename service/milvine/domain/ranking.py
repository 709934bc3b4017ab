"""How hits are ordered and chosen, beyond the model's score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from milvine.domain.filter import Scalar

DEFAULT_CANDIDATES = 200


@dataclass(frozen=True, slots=True)
class Factor:
    """The same factor for each item; over 0."""

    value: float


@dataclass(frozen=True, slots=True)
class NumberDecay:
    """A factor of 1 at `origin` that halves with each `half_distance` from there."""

    field: str
    origin: float
    half_distance: float


@dataclass(frozen=True, slots=True)
class TimeDecay:
    """A factor of 1 at `origin` that halves with each `half_life` from there."""

    field: str
    origin: datetime | None
    """None: the moment of the request."""
    half_life: timedelta


@dataclass(frozen=True, slots=True)
class Boost:
    """Multiplies scores of items that match a filter; divides those below 0."""

    kind: Factor | NumberDecay | TimeDecay
    filter: str = ""
    filter_params: Mapping[str, Scalar | tuple[Scalar, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diversity:
    """Maximal marginal relevance (Carbonell and Goldstein, 1998, section 2)."""

    relevance: float
    """0 to 1; 1 is by score alone."""
    candidates: int = DEFAULT_CANDIDATES
    """Among how many of the best by score it chooses; the others follow by score."""


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `most` hits with the same value of a field; of a list, with the same element."""

    field: str
    most: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The stages after the model's score: boosts, then a choice by diversity and under caps."""

    boosts: tuple[Boost, ...] = ()
    diversity: Diversity | None = None
    caps: tuple[Cap, ...] = ()


BY_SCORE = Ranking()

AnyDecay: TypeAlias = NumberDecay | TimeDecay
