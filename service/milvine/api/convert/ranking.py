"""How hits are ordered and chosen, from its message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from milvine.api.convert.values import check_count, filter_text, moment, parameters
from milvine.domain.errors import InvalidArgument
from milvine.domain.ranking import (
    BY_SCORE,
    DEFAULT_CANDIDATES,
    Boost,
    Cap,
    Diversity,
    Factor,
    NumberDecay,
    Ranking,
    TimeDecay,
)
from milvine.v1 import ranking_pb2 as pb

MAX_BOOSTS = 16
MAX_CAPS = 8
MAX_CANDIDATES = 1_000
MAX_MOST = 1_000
MIN_FACTOR, MAX_FACTOR = 1e-12, 1e12
"""What factors of a request come to together."""
_ROUNDING = 1 + 1e-9
MAX_DURATION_S = 315_576_000_000
"""The seconds of 10,000 years, the longest that a Duration may be."""


def ranking(message: pb.Ranking, path: str = "ranking") -> Ranking:
    """How hits are ordered and chosen; whether its fields are declared is not checked here."""
    if not (message.boosts or message.caps or message.HasField("diversity")):
        return BY_SCORE
    check_count(len(message.boosts), f"{path}.boosts", least=0, most=MAX_BOOSTS)
    check_count(len(message.caps), f"{path}.caps", least=0, most=MAX_CAPS)
    boosts = tuple(_boost(boost, f"{path}.boosts[{i}]") for i, boost in enumerate(message.boosts))
    _check_product(boosts, path)
    has_diversity = message.HasField("diversity")
    return Ranking(
        boosts,
        _diversity(message.diversity, f"{path}.diversity") if has_diversity else None,
        tuple(_cap(cap, f"{path}.caps[{i}]") for i, cap in enumerate(message.caps)),
    )


def positive_duration(message: Duration, path: str) -> timedelta:
    """A duration over 0, cut to the microsecond, at least one."""
    seconds, nanos = message.seconds, message.nanos
    is_valid = abs(nanos) < 1_000_000_000 and seconds * nanos >= 0
    if not is_valid or not 0 < seconds * 1_000_000_000 + nanos <= MAX_DURATION_S * 1_000_000_000:
        raise InvalidArgument.at(path, "must be a duration over 0 s, at most 10,000 years")
    return timedelta(seconds=seconds, microseconds=max(nanos // 1_000, 0 if seconds else 1))


def _boost(message: pb.Boost, path: str) -> Boost:
    return Boost(
        _kind(message, path),
        filter_text(message.filter, f"{path}.filter"),
        parameters(message.filter_params, f"{path}.filter_params"),
    )


def _kind(message: pb.Boost, path: str) -> Factor | NumberDecay | TimeDecay:
    match message.WhichOneof("kind"):
        case "factor":
            return Factor(_over_zero(message.factor, f"{path}.factor"))
        case "number_decay":
            return _number_decay(message.number_decay, f"{path}.number_decay")
        case "time_decay":
            return _time_decay(message.time_decay, f"{path}.time_decay")
        case _:
            raise InvalidArgument.at(path, "must have a factor, a number_decay or a time_decay")


def _number_decay(message: pb.NumberDecay, path: str) -> NumberDecay:
    if not math.isfinite(message.origin):
        raise InvalidArgument.at(f"{path}.origin", "must be a finite number")
    half = _over_zero(message.half_distance, f"{path}.half_distance")
    return NumberDecay(_name(message.field, path), message.origin, half)


def _time_decay(message: pb.TimeDecay, path: str) -> TimeDecay:
    has_origin = message.HasField("origin")
    origin = moment(message.origin, f"{path}.origin") if has_origin else None
    half_life = positive_duration(message.half_life, f"{path}.half_life")
    return TimeDecay(_name(message.field, path), origin, half_life)


def _diversity(message: pb.Diversity, path: str) -> Diversity:
    if not 0 <= message.relevance <= 1:
        raise InvalidArgument.at(f"{path}.relevance", "must be a number from 0 to 1")
    if not 0 <= message.candidates <= MAX_CANDIDATES:
        raise InvalidArgument.at(
            f"{path}.candidates",
            f"must be 1 to {MAX_CANDIDATES:,}, or 0 for {DEFAULT_CANDIDATES:,}",
        )
    return Diversity(message.relevance, message.candidates or DEFAULT_CANDIDATES)


def _cap(message: pb.Cap, path: str) -> Cap:
    if not 1 <= message.most <= MAX_MOST:
        raise InvalidArgument.at(f"{path}.most", f"must be 1 to {MAX_MOST:,}")
    return Cap(_name(message.field, path), message.most)


def _name(field: str, path: str) -> str:
    if not field:
        raise InvalidArgument.at(f"{path}.field", "must name an item field")
    return field


def _over_zero(number: float, path: str) -> float:
    if not 0 < number < math.inf:
        raise InvalidArgument.at(path, "must be a finite number over 0")
    return number


def _check_product(boosts: Sequence[Boost], path: str) -> None:
    """Raise InvalidArgument at the boost with which factors could come to too much or too little.

    Any of them may apply to an item, so those over 1 count together, and those under 1.
    """
    raised, lowered = 1.0, 1.0
    for i, boost in enumerate(boosts):
        if isinstance(boost.kind, Factor):
            raised *= max(boost.kind.value, 1.0)
            lowered *= min(boost.kind.value, 1.0)
        if raised > MAX_FACTOR * _ROUNDING or lowered * _ROUNDING < MIN_FACTOR:
            extreme = raised if raised > MAX_FACTOR else lowered
            raise InvalidArgument.at(
                f"{path}.boosts[{i}].factor",
                f"must leave all factors of the request together between {MIN_FACTOR:g} and "
                f"{MAX_FACTOR:g}, with this one they could come to {extreme:.3g}",
            )
