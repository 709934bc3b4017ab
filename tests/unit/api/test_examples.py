"""Tastes that callers say by examples, and requests to rank items and find audiences."""

from __future__ import annotations

import math

import pytest

from milvine.api.convert import retrieval as convert
from milvine.domain.hit import Explanation, Hit, SearchMethod, Source
from milvine.domain.query import (
    Consistency,
    ExamplesSubject,
    Neighbours,
    RankedItems,
    Selection,
)
from milvine.v1 import retrieval_pb2
from milvine.v1 import retrieval_service_pb2 as pb
from tests.unit.api.test_values import fault


def taste(positives=(), negatives=()):
    """A subject of examples, ids or ids with weights."""
    return pb.Subject(
        examples=pb.Examples(positives=map(_example, positives), negatives=map(_example, negatives))
    )


def _example(given):
    item_id, weight = given if isinstance(given, tuple) else (given, None)
    return pb.Example(item_id=item_id, weight=weight)


def test_examples():
    """Weights are 1 where they are absent; of an item that comes twice they add up."""
    found = convert.subject(taste(["a", ("b", 2.5), ("a", 1e6)], ["c"]), None, "subject")
    assert found == ExamplesSubject({"a": 1_000_001.0, "b": 2.5}, {"c": 1.0})
    assert convert.subject(taste((), ["c"]), None, "subject") == ExamplesSubject({}, {"c": 1.0})


@pytest.mark.parametrize(
    ("subject", "fields"),
    [
        (taste(), ["positives"]),
        (taste(["a", ""]), ["positives[1].item_id"]),
        (taste(["a"], ["b\0"]), ["negatives[0].item_id"]),
        (taste(["a"], ["b", "a"]), ["negatives[1].item_id"]),
        (taste([("a", 0.0)]), ["positives[0].weight"]),
        (taste(["a", ("b", -1.0)]), ["positives[1].weight"]),
        (taste([("a", math.nan), ("b", math.inf)]), ["positives[0].weight", "positives[1].weight"]),
        (taste([("a", 1_000_000.1)]), ["positives[0].weight"]),
        (taste(["a"], [("b", -math.inf)]), ["negatives[0].weight"]),
        (taste(map(str, range(1_001))), ["positives"]),
        (taste(["a"], (f"n{i}" for i in range(1_001))), ["negatives"]),
    ],
)
def test_examples_refused(subject, fields):
    """An example that breaks a rule is refused by its path."""
    found = [field for field, _ in fault(convert.subject, subject, None, "subject")]
    assert found == [f"subject.examples.{field}" for field in fields]


def test_ranked():
    """A request to rank items says which, and how."""
    request = pb.RankItemsRequest(
        item_ids=["b", "a", "b"],
        return_fields=["*"],
        explain=True,
        consistency=retrieval_pb2.CONSISTENCY_STRONG,
        release_id="r1",
    )
    assert convert.ranked(request) == (
        ["b", "a", "b"],
        Selection(
            return_fields=("*",), explain=True, consistency=Consistency.STRONG, release_id="r1"
        ),
    )


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "item_ids"),
        ({"item_ids": ["a"] * 10_001}, "item_ids"),
        ({"item_ids": ["a", ""]}, "item_ids[1]"),
        ({"item_ids": ["a"], "consistency": 9}, "consistency"),
        ({"item_ids": ["a"], "release_id": "x" * 257}, "release_id"),
        ({"item_ids": ["a"], "return_fields": ["*", "a"]}, "return_fields"),
    ],
)
def test_ranked_refused(fields, field):
    """A request to rank items that breaks a rule is refused by the path of the field."""
    assert fault(convert.ranked, pb.RankItemsRequest(**fields))[0][0] == field


def test_ranked_message():
    """Ranked items carry their reasons, where there are any, and what is missing."""
    why = Explanation(0.5, (("x", 0.25), ("y", -0.125)), ((1, 2.0),))
    found = RankedItems((Hit("a", 1.0, {}, why), Hit("b", 0.5)), "r", Source.POPULAR, ("c",))
    message = convert.ranked_message(found)
    assert message.source == retrieval_pb2.SOURCE_POPULAR
    assert list(message.missing_item_ids) == ["c"]
    first, second = message.hits
    assert first.explanation == pb.Explanation(
        base_score=0.5,
        contributions=[
            pb.Contribution(item_id="x", amount=0.25),
            pb.Contribution(item_id="y", amount=-0.125),
        ],
        boosts=[pb.AppliedBoost(index=1, factor=2.0)],
    )
    assert not second.HasField("explanation")


def test_audience():
    """A request for an audience is a selection of users; the answer says how it was found."""
    request = pb.FindAudienceRequest(page_size=3, filter="age > 3", include_seen=True)
    expected = Selection(page_size=3, filter="age > 3", include_seen=True)
    found = convert.audience(request)
    assert (found.page_size, found.filter, found.include_seen) == (
        expected.page_size,
        expected.filter,
        expected.include_seen,
    )
    answer = Neighbours((Hit("u", 2.0, {"age": 4}),), "r", is_short=True, method=SearchMethod.EXACT)
    message = convert.audience_message(answer)
    assert [(hit.user_id, hit.score) for hit in message.hits] == [("u", 2.0)]
    assert message.hits[0].fields["age"].int64_value == 4
    assert message.shortfall == retrieval_pb2.SHORTFALL_NO_MORE_MATCHES
    assert message.method == retrieval_pb2.SEARCH_METHOD_EXACT
