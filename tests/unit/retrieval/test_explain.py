"""What the items of a history do to a score, against encoding again without each."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.domain.errors import DeadlineExceeded
from milvine.domain.hit import Explanation, Hit
from milvine.domain.query import ExamplesSubject, HistorySubject, UserSubject, VectorSubject
from milvine.models import families
from milvine.models.histories import history_of
from milvine.records import Records
from milvine.retrieval import Active, People
from milvine.retrieval.explain import (
    MOST_CONTRIBUTIONS,
    MOST_LOOKED_AT,
    Explained,
    Explainer,
    explained,
)
from milvine.retrieval.people import Person
from tests.contracts.records import samples
from tests.unit.models.worlds import CATALOG, table
from tests.unit.retrieval.served import served_checkerboard

every_family = pytest.mark.parametrize("family", sorted(families))


@pytest.fixture
def explainer(tmp_path):
    """Over records where a user rated some items."""
    records = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    records.catalogs.create(CATALOG)
    records.interactions.append(CATALOG.id, rated("u", [0, 2, 4, 1]))
    yield Explainer(records, People(records, staleness_s=0))
    records.close()


def rated(user, items):
    """Ratings by a user, one after the other: 5 for even items, 1 for odd ones."""
    return table(
        [(user, f"i{n:02}", "rate", 1.0 if n % 2 else 5.0, at) for at, n in enumerate(items)]
    )


def active_of(family):
    """A release of the checkerboard."""
    return Active(CATALOG, samples.release("r", "m"), served_checkerboard(family), (), 0)


def vector_of(served, events):
    """How the model encodes one person's events."""
    history = history_of(events, CATALOG, served.feedback, items=served.items)
    return served.encoder.encode(history)[0]


def score_of(served, events, item):
    """How the whole model scores an item for one person's events."""
    history = history_of(events, CATALOG, served.feedback, items=served.items)
    rows = served.items.rows([item])
    score = served.item_vectors[rows[0]] @ served.encoder.encode(history)[0]
    if served.scorer is not None:
        score += served.scorer.gains(served.scorer.read(history), rows[None])[0, 0]
    return float(score)


@every_family
async def test_a_user_is_placed_and_told_by_leaving_out(family, explainer):
    """The vector is that of the whole history; each amount is the score less the one without."""
    active = active_of(family)
    served, events = active.served, rated("u", [0, 2, 4, 1])
    (placed,) = await explainer.place(active, [UserSubject("u")], timeout_s=20)

    whole = vector_of(served, events)
    hit = Hit("i08", score_of(served, events, "i08"))
    (told,) = explained(served, placed, [hit])

    assert placed.person.vector == pytest.approx(whole, abs=1e-6)
    assert placed.person.seen == ("i00", "i02", "i04", "i01")
    assert told.explanation.base_score == hit.score
    known = dict(told.explanation.contributions)
    for place, item in enumerate(["i00", "i02", "i04", "i01"]):
        rest = events.take([n for n in range(4) if n != place])
        if item in known:
            without = score_of(served, rest, "i08")
            assert known[item] == pytest.approx(hit.score - without, abs=1e-5)
    assert {"i00", "i02", "i04"} <= set(known)
    amounts = [abs(amount) for amount in known.values()]
    assert amounts == sorted(amounts, reverse=True)


@every_family
async def test_a_history_of_one_item_is_all_that_counts(family, explainer):
    """The one item counts by the whole score over that of a person of whom nothing is known."""
    active = active_of(family)
    served = active.served
    (placed,) = await explainer.place(active, [HistorySubject(rated("x", [0]))], timeout_s=20)
    score = score_of(served, rated("x", [0]), "i08")

    (told,) = explained(served, placed, [Hit("i08", score)])

    ((item, amount),) = told.explanation.contributions
    assert item == "i00"
    nobody = score_of(served, rated("x", [0]).slice(0, 0), "i08")
    assert amount == pytest.approx(score - nobody, abs=1e-5)


async def test_long_histories_are_told_by_their_latest_items(explainer):
    """No more than the latest items are looked at, and no more told than people read."""
    active = active_of("als")
    items = [n % 30 for n in range(60)]
    (placed,) = await explainer.place(active, [HistorySubject(rated("x", items))], timeout_s=20)
    (told,) = explained(active.served, placed, [Hit("i08", 1.0)])

    assert len(placed.reasons.items) <= MOST_LOOKED_AT
    assert len(told.explanation.contributions) == MOST_CONTRIBUTIONS
    assert placed.reasons.items[0] == "i28"  # the latest of those that teach something


async def test_nothing_is_told_after_the_deadline(explainer):
    """Work that nobody waits for any more ends."""
    with pytest.raises(DeadlineExceeded):
        await explainer.place(active_of("als"), [UserSubject("u")], timeout_s=0)


@every_family
async def test_examples_are_told_by_leaving_out(family, explainer):
    """What fits counts for its like, and what doesn't against it."""
    active = active_of(family)
    subject = ExamplesSubject({"i00": 1.0, "i02": 2.0}, {"i04": 1.0, "?": 1.0})
    (placed,) = await explainer.place(active, [subject], timeout_s=20)
    (told,) = explained(active.served, placed, [Hit("i08", 1.0)])

    amounts = dict(told.explanation.contributions)
    assert set(amounts) == {"i00", "i02", "i04"}
    assert amounts["i04"] < 0 < amounts["i02"]
    assert placed.person.seen == ("i00", "i02", "i04", "?")


async def test_what_has_no_history_has_no_contributions(explainer):
    """A vector, an unknown user and unknown examples have none."""
    active = active_of("als")
    vector = np.ones(active.served.dimension, np.float32)
    placed = await explainer.place(
        active,
        [VectorSubject(vector), UserSubject("nobody"), ExamplesSubject({"?": 1.0}, {})],
        timeout_s=20,
    )

    assert [one.person.vector is None for one in placed] == [False, True, True]
    for one in placed:
        (told,) = explained(active.served, one, [Hit("i08", 2.0)])
        assert told.explanation.contributions == ()
        assert told.explanation.base_score == 2.0


def test_what_a_ranking_told_stays():
    """A hit keeps its score before boosts, and its boosts; for others the base is the score."""
    served = served_checkerboard("als")
    hits = [Hit("i00", 4.0, explanation=Explanation(2.0, boosts=((1, 2.0),))), Hit("i01", 1.0)]
    first, second = explained(served, Explained(Person(None, ())), hits)
    assert first == hits[0]
    assert second.explanation == Explanation(1.0)
