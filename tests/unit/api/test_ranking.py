"""Rankings from their messages."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from milvine.api.convert.ranking import positive_duration, ranking
from milvine.api.convert.retrieval import recommended
from milvine.domain.query import Selection
from milvine.domain.ranking import (
    BY_SCORE,
    Boost,
    Cap,
    Diversity,
    Factor,
    NumberDecay,
    Ranking,
    TimeDecay,
)
from milvine.v1 import ranking_pb2 as pb
from milvine.v1 import value_pb2
from milvine.v1.retrieval_service_pb2 import BatchRecommendRequest, RecommendRequest
from tests.unit.api.test_values import fault

DAY = Duration(seconds=86_400)


@pytest.mark.parametrize("kind", [RecommendRequest, BatchRecommendRequest])
def test_a_ranking_arrives(kind):
    """Each part of a message becomes the part of a ranking; an absent origin stays open."""
    message = pb.Ranking(
        boosts=[
            pb.Boost(
                filter="year == {y}",
                filter_params={"y": value_pb2.Value(int64_value=1)},
                factor=2.5,
            ),
            pb.Boost(number_decay=pb.NumberDecay(field="price", half_distance=4)),
            pb.Boost(time_decay=pb.TimeDecay(field="made", half_life=DAY)),
            pb.Boost(time_decay=pb.TimeDecay(field="made", half_life=DAY, origin=Timestamp())),
        ],
        diversity=pb.Diversity(relevance=0.7),
        caps=[pb.Cap(field="author", most=2)],
    )
    day, epoch = timedelta(days=1), datetime(1970, 1, 1, tzinfo=UTC)

    assert recommended(kind(ranking=message)).ranking == Ranking(
        (
            Boost(Factor(2.5), "year == {y}", {"y": 1}),
            Boost(NumberDecay("price", 0.0, 4.0)),
            Boost(TimeDecay("made", None, day)),
            Boost(TimeDecay("made", epoch, day)),
        ),
        Diversity(0.7, 200),
        (Cap("author", 2),),
    )


@pytest.mark.parametrize("kind", [RecommendRequest, BatchRecommendRequest])
def test_no_ranking_is_by_score(kind):
    """An absent ranking and an empty one rank by score alone."""
    assert recommended(kind()) == Selection()
    assert recommended(kind(ranking=pb.Ranking())).ranking is BY_SCORE


def boost(**kind):
    """A ranking of one boost."""
    return pb.Ranking(boosts=[pb.Boost(**kind)])


def number(**fields):
    """A ranking of one decay by a number."""
    return boost(number_decay=pb.NumberDecay(**{"field": "a", "half_distance": 1} | fields))


def time(**fields):
    """A ranking of one decay by a time."""
    return boost(time_decay=pb.TimeDecay(**{"field": "a", "half_life": DAY} | fields))


def factors(*numbers):
    """A ranking of factors."""
    return pb.Ranking(boosts=[pb.Boost(factor=one) for one in numbers])


def diversity(**fields):
    """A ranking by diversity."""
    return pb.Ranking(diversity=pb.Diversity(**fields))


def cap(**fields):
    """A ranking with a cap."""
    return pb.Ranking(caps=[pb.Cap(**{"field": "a", "most": 1} | fields)])


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (factors(*[1.0] * 17), "ranking.boosts"),
        (pb.Ranking(caps=[pb.Cap(field="a", most=1)] * 9), "ranking.caps"),
        (boost(), "ranking.boosts[0]"),
        (boost(factor=1, filter="x" * 16_385), "ranking.boosts[0].filter"),
        (
            boost(factor=1, filter_params={"p": value_pb2.Value()}),
            "ranking.boosts[0].filter_params.p",
        ),
        *((factors(1, bad), "ranking.boosts[1].factor") for bad in (0, -1, math.nan, math.inf)),
        (factors(2, 1e12), "ranking.boosts[1].factor"),
        (factors(1e-6, 1e6, 1e-7), "ranking.boosts[2].factor"),
        (number(origin=math.nan), "ranking.boosts[0].number_decay.origin"),
        (number(origin=math.inf), "ranking.boosts[0].number_decay.origin"),
        *(
            (number(half_distance=bad), "ranking.boosts[0].number_decay.half_distance")
            for bad in (0, -1, math.nan, math.inf)
        ),
        (number(field=""), "ranking.boosts[0].number_decay.field"),
        (time(field=""), "ranking.boosts[0].time_decay.field"),
        (time(origin=Timestamp(seconds=2**62)), "ranking.boosts[0].time_decay.origin"),
        *(
            (time(half_life=bad), "ranking.boosts[0].time_decay.half_life")
            for bad in (
                None,
                Duration(),
                Duration(seconds=-1),
                Duration(nanos=-1),
                Duration(seconds=1, nanos=-1),
                Duration(nanos=2_000_000_000),
                Duration(seconds=315_576_000_001),
            )
        ),
        *(
            (diversity(relevance=bad), "ranking.diversity.relevance")
            for bad in (-0.1, 1.1, math.nan, math.inf)
        ),
        (diversity(candidates=-1), "ranking.diversity.candidates"),
        (diversity(candidates=1_001), "ranking.diversity.candidates"),
        (cap(field=""), "ranking.caps[0].field"),
        (cap(most=0), "ranking.caps[0].most"),
        (cap(most=1_001), "ranking.caps[0].most"),
    ],
)
def test_a_bad_ranking_is_refused_by_its_path(message, path):
    """What breaks a rule is named by its place in the request."""
    assert [field for field, _ in fault(ranking, message)] == [path]


def test_factors_to_the_limit_are_taken():
    """What comes to exactly the limit, by many factors up and down, is no fault."""
    assert len(ranking(factors(1e6, 1e6, 1e-6, 1e-6, 1.0)).boosts) == 5


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Duration(nanos=1), timedelta(microseconds=1)),
        (Duration(seconds=1, nanos=1_999), timedelta(seconds=1, microseconds=1)),
        (Duration(seconds=315_576_000_000), timedelta(seconds=315_576_000_000)),
    ],
)
def test_durations(message, expected):
    """Durations are kept to the microsecond and never come to nothing."""
    assert positive_duration(message, "half_life") == expected
