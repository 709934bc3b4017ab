"""What callers ask of popularity."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from milvine.api.convert import popularity as convert
from milvine.domain.catalog import Catalog, EventType
from milvine.domain.query import Counting, Selection
from milvine.v1 import retrieval_service_pb2 as pb
from tests.unit.api.test_values import fault

VIEW, BUY = EventType("view"), EventType("buy", 5.0)
CATALOG = Catalog("shop", (VIEW, BUY, EventType("shown", 0.0)))
YEARS_10_000 = 315_576_000_000


def test_defaults():
    """A request that sets nothing counts everything, and asks for ten hits."""
    request = pb.PopularItemsRequest()
    assert convert.counting(request, CATALOG) == Counting()
    assert convert.popular(request) == Selection()


def test_counting():
    """A half-life and event types arrive, each type once."""
    request = pb.PopularItemsRequest(
        half_life=Duration(seconds=90, nanos=1_500), event_types=["buy", "view", "buy"]
    )
    half_life = timedelta(seconds=90, microseconds=1)
    assert convert.counting(request, CATALOG) == Counting(half_life, (VIEW, BUY))


@pytest.mark.parametrize(
    ("message", "span"),
    [
        (Duration(seconds=YEARS_10_000), timedelta(seconds=YEARS_10_000)),
        (Duration(nanos=1), timedelta(microseconds=1)),
    ],
)
def test_the_shortest_and_the_longest_half_life(message, span):
    """A half-life is at least a microsecond, at most 10,000 years."""
    request = pb.PopularItemsRequest(half_life=message)
    assert convert.counting(request, CATALOG).half_life == span


def test_excluded():
    """The selection has the excluded items."""
    request = pb.PopularItemsRequest(exclude_item_ids=["a", "b", "a"], page_size=3)
    assert convert.popular(request) == Selection(page_size=3, exclude_ids=frozenset("ab"))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"half_life": Duration()}, "half_life"),
        ({"half_life": Duration(seconds=-1)}, "half_life"),
        ({"half_life": Duration(nanos=-1)}, "half_life"),
        ({"half_life": Duration(seconds=1, nanos=-1)}, "half_life"),
        ({"half_life": Duration(seconds=YEARS_10_000, nanos=1)}, "half_life"),
        ({"event_types": ["view", "viewed"]}, "event_types[1]"),
        ({"event_types": [""]}, "event_types[0]"),
        ({"event_types": ["view"] * 65}, "event_types"),
    ],
)
def test_counting_refused(fields, field):
    """A half-life is over 0, and event types are declared."""
    assert fault(convert.counting, pb.PopularItemsRequest(**fields), CATALOG)[0][0] == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"exclude_item_ids": ["a"] * 100_001}, "exclude_item_ids"),
        ({"exclude_item_ids": ["a", ""]}, "exclude_item_ids[1]"),
        ({"page_size": -1}, "page_size"),
    ],
)
def test_selection_refused(fields, field):
    """What all searches have in common is checked, and what is excluded."""
    assert fault(convert.popular, pb.PopularItemsRequest(**fields))[0][0] == field
