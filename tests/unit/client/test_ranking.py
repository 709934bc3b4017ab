"""Rankings as the client sends them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from milvine.api.convert.ranking import ranking as received
from milvine.client import Boost, NumberDecay, Ranking, TimeDecay
from milvine.client.ranking import ranking_message
from milvine.domain import ranking as domain
from milvine.v1 import ranking_pb2

DAY = timedelta(days=1)
MOMENT = datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_a_ranking_arrives_as_it_was_meant():
    """The service reads from the message what the client was given."""
    given = Ranking(
        [
            Boost(2.0, "year >= {y}", {"y": 1990}),
            NumberDecay("price", 10.0, 5.0, "used"),
            TimeDecay("made", DAY),
            TimeDecay("made", DAY, MOMENT),
        ],
        relevance=0.0,
        candidates=50,
        caps={"author": 2},
    )

    assert received(ranking_message(given)) == domain.Ranking(
        (
            domain.Boost(domain.Factor(2.0), "year >= {y}", {"y": 1990}),
            domain.Boost(domain.NumberDecay("price", 10.0, 5.0), "used"),
            domain.Boost(domain.TimeDecay("made", None, DAY)),
            domain.Boost(domain.TimeDecay("made", MOMENT, DAY)),
        ),
        domain.Diversity(0.0, 50),
        (domain.Cap("author", 2),),
    )


def test_defaults_are_the_services():
    """No diversity unless a relevance is given, then among as many as the service says."""
    assert received(ranking_message(Ranking(caps={"a": 1}))).diversity is None
    assert received(ranking_message(Ranking(relevance=1.0))).diversity == domain.Diversity(1.0)


def test_messages_pass():
    """A message is sent as it is, and none stays none."""
    message = ranking_pb2.Ranking()

    assert ranking_message(message) is message
    assert ranking_message(None) is None
