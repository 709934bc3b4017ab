"""Decayed counts of interactions by item."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from milvine.domain.entity import to_micros
from milvine.domain.interaction import MAX_EVENT_TIME, MIN_EVENT_TIME
from milvine.records.popularity import COUNTS, MOST_HALF_LIVES
from tests.contracts.records.conftest import SHOP
from tests.contracts.records.samples import table

NOW = to_micros(datetime.now(UTC))
DAY = to_micros(datetime(1970, 1, 2, tzinfo=UTC))
WEIGHTS = {"view": 1.0, "rate": 2.5}
HALF_LIVES = [
    None,
    timedelta(microseconds=1),
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=30),
    timedelta(days=3_652_500),
]


def event(item, moment, *, kind="view", user="u"):
    return {
        "event_id": None,
        "user_id": user,
        "item_id": item,
        "event_type": kind,
        "value": 3.0 if kind == "rate" else None,
        "event_time": moment,
    }


def written(records, rows):
    """Write events, a user for each, so that none is another's duplicate."""
    numbered = [row | {"user_id": f"u{n}"} for n, row in enumerate(rows)]
    records.interactions.append("shop", table(numbered))
    return numbered


def counts(records, weights=WEIGHTS, half_life=None):
    found = records.interactions.decayed_counts("shop", weights, half_life)
    assert found.schema == COUNTS
    assert len(set(found["item_id"].to_pylist())) == found.num_rows
    return dict(zip(found["item_id"].to_pylist(), found["count"].to_pylist(), strict=True))


def expected(rows, weights, half_life):
    """The counts by their definition, in numpy."""
    rows = [row for row in rows if row["event_type"] in weights]
    times = np.array([row["event_time"] for row in rows], float)
    amounts = np.array([weights[row["event_type"]] for row in rows])
    if half_life is not None:
        ages = np.maximum(times[times <= NOW].max() - times, 0.0)
        halvings = ages / (half_life / timedelta(microseconds=1))
        amounts *= np.where(halvings <= MOST_HALF_LIVES, np.exp2(-halvings), 0.0)
    found: dict[str, float] = {}
    for row, amount in zip(rows, amounts.tolist(), strict=True):
        found[row["item_id"]] = found.get(row["item_id"], 0.0) + amount
    return {item: count for item, count in found.items() if count}


@pytest.mark.parametrize("half_life", HALF_LIVES)
@pytest.mark.parametrize("weights", [WEIGHTS, {"view": 1.0}, {"rate": 1e6}])
def test_counts_are_as_defined(records, half_life, weights):
    """The count of an item is the sum of weights, halved with each half-life of age."""
    rng = np.random.default_rng(0)
    ages = (10 ** rng.uniform(0, 14, 400)).astype(np.int64)
    rows = written(
        records,
        [
            event(f"i{int(rng.integers(20))}", NOW - int(age), kind=str(rng.choice([*WEIGHTS])))
            for age in ages
        ],
    )
    assert counts(records, weights, half_life) == pytest.approx(
        expected(rows, weights, half_life), rel=1e-9
    )


def test_ages_are_taken_from_the_latest_event(records):
    """What was imported from long ago counts as if it were of now."""
    old = NOW - 20 * 365 * DAY
    written(records, [event("new", old), event("old", old - DAY), event("old", old - 2 * DAY)])
    assert counts(records, half_life=timedelta(days=1)) == pytest.approx({"new": 1.0, "old": 0.75})


def test_only_what_counts_tells_what_is_the_latest(records):
    """An event of another type does not age the ones that count."""
    written(records, [event("a", NOW - 5 * DAY), event("b", NOW, kind="rate")])
    assert counts(records, {"view": 1.0}, timedelta(days=1)) == {"a": 1.0}


def test_an_event_of_the_future_ages_nothing(records):
    """An event that is dated wrong counts like one of now, and others keep their counts."""
    written(
        records,
        [event("wrong", MAX_EVENT_TIME), event("now", NOW - DAY), event("now", NOW - 2 * DAY)],
    )
    assert counts(records, half_life=timedelta(days=1)) == {"wrong": 1.0, "now": 1.5}


def test_only_the_future(records):
    """Where all events are of the future, all count the same."""
    written(records, [event("a", MAX_EVENT_TIME), event("b", MAX_EVENT_TIME - DAY)])
    assert counts(records, half_life=timedelta(hours=1)) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("half_life", [timedelta(microseconds=1), timedelta(days=3_652_500)])
def test_the_ends_of_time(records, half_life):
    """The oldest event that there can be overflows nothing."""
    written(records, [event("first", MIN_EVENT_TIME), event("last", NOW)])
    found = counts(records, half_life=half_life)
    assert found["last"] == 1.0
    assert ("first" in found) == (half_life > timedelta(days=1))


def test_what_is_too_old_is_left_out(records):
    """Past 40 half-lives an interaction is not counted, nor its item."""
    written(records, [event("a", NOW), event("b", NOW - 41 * DAY), event("c", NOW - 39 * DAY)])
    assert sorted(counts(records, half_life=timedelta(days=1))) == ["a", "c"]


def test_nothing_counts(records):
    """No event types, no events, or no catalog: no counts."""
    assert counts(records) == {}
    written(records, [event("a", NOW)])
    assert counts(records, {}) == {}
    assert counts(records, {"rate": 1.0}, timedelta(days=1)) == {}
    assert records.interactions.decayed_counts("none", WEIGHTS, None).num_rows == 0


def test_a_catalog_counts_its_own(records):
    """The events of another catalog neither count nor age."""
    records.catalogs.create(replace(SHOP, id="other"))
    written(records, [event("a", NOW - 9 * DAY)])
    records.interactions.append("other", table([event("b", NOW)]))
    assert counts(records, half_life=timedelta(days=1)) == {"a": 1.0}


def test_names_are_only_names(records):
    """Whatever stands in ids and names, it is quoted."""
    odd = ["it's", '"', "\\", "%s", ":x", "😀", "é", "\n"]
    written(records, [event(item, NOW) for item in odd])
    assert counts(records, {"view": 1.0, "it's :no %s": 2.0}) == dict.fromkeys(odd, 1.0)


def test_an_sqlite_without_mathematics(records):
    """Where SQLite was built without exp, Python's is taken."""
    database = records.interactions._database
    if not database.is_sqlite:
        pytest.skip("PostgreSQL always has it")
    written(records, [event("a", NOW), event("b", NOW - DAY)])
    with database.read() as connection:
        driver = connection.connection.driver_connection
        driver.create_function("exp", 1, None)
        with pytest.raises(sqlite3.OperationalError):
            driver.execute("SELECT exp(1)")
    assert counts(records, half_life=timedelta(days=1)) == pytest.approx({"a": 1.0, "b": 0.5})
