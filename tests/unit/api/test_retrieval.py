"""What callers ask of retrieval, and what it found."""

from __future__ import annotations

import math

import numpy as np
import pytest

from milvine.api.convert import retrieval as convert
from milvine.domain.catalog import Catalog, EventType
from milvine.domain.hit import Hit, Recommendation, Source
from milvine.domain.query import (
    Embeddings,
    HistorySubject,
    Neighbours,
    Selection,
    UserSubject,
)
from milvine.v1 import retrieval_pb2, value_pb2
from milvine.v1 import retrieval_service_pb2 as pb
from tests.unit.api.test_values import fault

CATALOG = Catalog("films", (EventType("view"),))
NAN = value_pb2.Value(double_value=math.nan)


def test_subjects():
    """A subject is a user, a history or a vector."""
    history = pb.History(events=[pb.HistoryEvent(item_id="b"), pb.HistoryEvent(item_id="a")])
    user, events, vector = convert.subjects(
        [
            pb.Subject(user_id="7"),
            pb.Subject(history=history),
            pb.Subject(vector=pb.Vector(values=[1, 0.5])),
        ],
        ["a", "b", "c"],
        CATALOG,
    )
    assert user == UserSubject("7")
    assert isinstance(events, HistorySubject)
    assert events.events["item_id"].to_pylist() == ["b", "a"]
    assert vector.vector.dtype == np.float32
    assert vector.vector.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("subject", "field"),
    [
        (pb.Subject(), "subject"),
        (pb.Subject(user_id=""), "subject.user_id"),
        (pb.Subject(user_id="a\0"), "subject.user_id"),
        (pb.Subject(history=pb.History()), "subject.history.events"),
        (
            pb.Subject(history=pb.History(events=[pb.HistoryEvent(item_id="")])),
            "subject.history.events[0].item_id",
        ),
        (
            pb.Subject(history=pb.History(events=[pb.HistoryEvent(item_id="a", value=1)])),
            "subject.history.events[0].value",
        ),
        (pb.Subject(vector=pb.Vector()), "subject.vector.values"),
        (pb.Subject(vector=pb.Vector(values=[1, math.nan])), "subject.vector.values"),
        (pb.Subject(vector=pb.Vector(values=[math.inf])), "subject.vector.values"),
    ],
)
def test_subject_refused(subject, field):
    """A subject that breaks a rule is refused by the path of the field."""
    assert fault(convert.subject, subject, CATALOG, "subject")[0][0] == field


@pytest.mark.parametrize("count", [0, 257])
def test_subject_count(count):
    """A batch has 1 to 256 subjects."""
    assert fault(convert.check_subject_count, [pb.Subject()] * count)[0][0] == "subjects"


RECOMMENDING = (pb.RecommendRequest, pb.BatchRecommendRequest)
SEARCHING = (*RECOMMENDING, pb.SimilarItemsRequest, pb.SimilarUsersRequest)


@pytest.mark.parametrize("kind", SEARCHING)
def test_selection_defaults(kind):
    """A request that sets nothing asks for ten unseen hits without fields."""
    assert convert.selection(kind()) == Selection()


@pytest.mark.parametrize("kind", SEARCHING)
def test_selection(kind):
    """What all searches have in common arrives."""
    request = kind(
        page_size=5_000,
        filter="year >= {y}",
        filter_params={"y": value_pb2.Value(int64_value=1990)},
        return_fields=["title", "year", "title"],
    )
    assert convert.selection(request) == Selection(
        page_size=1_000,
        filter="year >= {y}",
        filter_params={"y": 1990},
        return_fields=("title", "year"),
    )


@pytest.mark.parametrize("kind", RECOMMENDING)
def test_recommended(kind):
    """Recommendations are told what to leave out, too."""
    request = kind(page_size=5, exclude_item_ids=["a", "b", "a"], include_seen=True)
    assert convert.recommended(request) == Selection(
        page_size=5, exclude_ids=frozenset("ab"), include_seen=True
    )


@pytest.mark.parametrize("kind", SEARCHING)
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"filter": "x" * 16_385}, "filter"),
        ({"filter_params": {"p": value_pb2.Value()}}, "filter_params.p"),
        ({"filter_params": {"p": NAN}}, "filter_params.p"),
        ({"return_fields": ["*", "title"]}, "return_fields"),
        ({"return_fields": ["title"] * 65}, "return_fields"),
    ],
)
def test_selection_refused(kind, fields, field):
    """A field that breaks a rule is refused by its path, the same in each request."""
    assert fault(convert.selection, kind(**fields))[0][0] == field


@pytest.mark.parametrize(
    ("ids", "field"),
    [
        (["a"] * 100_001, "exclude_item_ids"),
        (["a", ""], "exclude_item_ids[1]"),
        (["a" * 257], "exclude_item_ids[0]"),
        (["a", "é" * 129], "exclude_item_ids[1]"),
        (["é", "a\x00"], "exclude_item_ids[1]"),
    ],
)
def test_excluded_refused(ids, field):
    """At most 100,000 good ids are excluded."""
    request = pb.RecommendRequest(exclude_item_ids=ids)
    assert fault(convert.recommended, request)[0][0] == field


def test_excluded_taken():
    """Ids of up to 256 bytes are good in any script, one and all."""
    ids = ["a" * 256, "é" * 128, "中", "a b\n"]
    request = pb.RecommendRequest(exclude_item_ids=[*ids, ids[0]])
    assert convert.recommended(request).exclude_ids == frozenset(ids)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GetEmbeddingsRequest(), "item_ids"),
        (pb.GetEmbeddingsRequest(item_ids=["a"] * 1_001), "item_ids"),
        (pb.GetEmbeddingsRequest(user_ids=["a", ""]), "user_ids[1]"),
    ],
)
def test_embedding_ids_refused(request_, field):
    """Embeddings are asked for by 1 to 1,000 good ids of a side."""
    assert fault(convert.embedding_ids, request_)[0][0] == field


@pytest.mark.parametrize(
    ("source", "is_short", "expected"),
    [
        (
            Source.PERSONAL,
            False,
            (retrieval_pb2.SOURCE_PERSONAL, retrieval_pb2.SHORTFALL_NONE),
        ),
        (
            Source.POPULAR,
            True,
            (retrieval_pb2.SOURCE_POPULAR, retrieval_pb2.SHORTFALL_NO_MORE_MATCHES),
        ),
    ],
)
def test_recommendation_message(source, is_short, expected):
    """The answer names hits, release, source and whether it is short."""
    found = Recommendation((Hit("7", 0.5, {"year": 1990}),), "r1", source, is_short)
    message = convert.recommendation_message(found)
    assert (message.source, message.shortfall) == expected
    assert message.release_id == "r1"
    assert message.hits[0].item_id == "7"
    assert message.hits[0].score == 0.5
    assert message.hits[0].fields["year"].int64_value == 1990


@pytest.mark.parametrize(
    ("is_short", "shortfall"),
    [
        (False, retrieval_pb2.SHORTFALL_NONE),
        (True, retrieval_pb2.SHORTFALL_NO_MORE_MATCHES),
    ],
)
def test_neighbour_messages(is_short, shortfall):
    """Neighbours are told as items or as users, and whether there are fewer than asked for."""
    found = Neighbours((Hit("7", 0.5),), "r1", is_short)
    items, users = convert.similar_items_message(found), convert.similar_users_message(found)
    assert items.hits[0].item_id == "7"
    assert users.hits[0].user_id == "7"
    assert items.shortfall == users.shortfall == shortfall


def test_embeddings_message():
    """Embeddings come in the order asked for, and the missing ones are named."""
    items = {"a": np.array([1, 2], np.float32), "b": np.array([3, 4], np.float32)}
    users = {"u": np.array([5, 6], np.float32)}
    found = Embeddings(items, users, "r1")
    message = convert.embeddings_message(found, ["b", "x", "a"], ["v", "u"])
    assert [(e.item_id, list(e.vector.values)) for e in message.items] == [
        ("b", [3, 4]),
        ("a", [1, 2]),
    ]
    assert [(e.user_id, list(e.vector.values)) for e in message.users] == [("u", [5, 6])]
    assert list(message.missing_item_ids) == ["x"]
    assert list(message.missing_user_ids) == ["v"]
