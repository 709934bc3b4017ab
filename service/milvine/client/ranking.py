"""How hits are ordered and chosen, in Python's own types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as declared
from datetime import datetime, timedelta
from typing import TypeAlias

from milvine.client.types import Parameter, duration, timestamp, value_messages
from milvine.v1 import ranking_pb2 as pb


@dataclass(frozen=True, slots=True)
class Boost:
    """Multiplies the scores of items that match a filter; of all, where it is empty."""

    factor: float
    filter: str = ""
    filter_params: Mapping[str, Parameter] = declared(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NumberDecay:
    """Halves scores with each `half_distance` between a number of the item and `origin`."""

    field: str
    origin: float
    half_distance: float
    filter: str = ""
    filter_params: Mapping[str, Parameter] = declared(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimeDecay:
    """Halves scores with each `half_life` between a time of the item and `origin`."""

    field: str
    half_life: timedelta
    origin: datetime | None = None
    """None: now."""
    filter: str = ""
    filter_params: Mapping[str, Parameter] = declared(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The stages after the model's score: boosts, then a choice by diversity and under caps.

    Ranking([Boost(2, "year >= 2000")], relevance=0.7, caps={"author": 1})
    """

    boosts: Sequence[Boost | NumberDecay | TimeDecay] = ()
    relevance: float | None = None
    """1: by score alone, 0: by difference to the hits before alone; None: no diversity."""
    candidates: int = 0
    """Among how many of the best by score diversity chooses; 0: 200."""
    caps: Mapping[str, int] = declared(default_factory=dict)
    """The most hits that share a value, by field."""


AnyRanking: TypeAlias = Ranking | pb.Ranking


def ranking_message(ranking: AnyRanking | None) -> pb.Ranking | None:
    """The message of a ranking."""
    if not isinstance(ranking, Ranking):
        return ranking
    message = pb.Ranking(
        boosts=map(_boost, ranking.boosts),
        caps=[pb.Cap(field=name, most=most) for name, most in ranking.caps.items()],
    )
    if ranking.relevance is not None:
        message.diversity.relevance = ranking.relevance
        message.diversity.candidates = ranking.candidates
    return message


def _boost(boost: Boost | NumberDecay | TimeDecay) -> pb.Boost:
    message = pb.Boost(filter=boost.filter, filter_params=value_messages(boost.filter_params))
    match boost:
        case Boost(factor):
            message.factor = factor
        case NumberDecay(name, origin, half_distance):
            by_number = pb.NumberDecay(field=name, origin=origin, half_distance=half_distance)
            message.number_decay.CopyFrom(by_number)
        case TimeDecay(name, half_life, origin):
            by_time = pb.TimeDecay(
                field=name, origin=timestamp(origin), half_life=duration(half_life)
            )
            message.time_decay.CopyFrom(by_time)
    return message
