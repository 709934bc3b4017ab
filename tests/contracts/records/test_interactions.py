"""Interactions: written once, read as Arrow."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.domain.errors import NotFound
from milvine.domain.interaction import INTERACTIONS, Appended
from milvine.records import Place, Records
from milvine.records.bulk import COPY_FROM
from tests.contracts.records.conftest import SHOP
from tests.contracts.records.samples import events, table
from tests.servers.postgres import fresh_database

EDGES = ["'", '"', "\n", "\t", "\\", "\\N", "%s", "?", "😀", "é" * 128, " ", "NULL", ","]


def row(user="u", item="i", moment=1, **more):
    return {
        "event_id": None,
        "user_id": user,
        "item_id": item,
        "event_type": "view",
        "value": None,
        "event_time": moment,
    } | more


def many(count, *, named=False, seed=0):
    """That many different events of a few users, in no order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    return pa.table(
        [
            pa.array([f"e{n}" for n in order]) if named else pa.nulls(count, pa.string()),
            [f"u{n % 7}" for n in order],
            [f"i{n % 11}" for n in order],
            ["view"] * count,
            rng.random(count),
            order.astype(np.int64),
        ],
        schema=INTERACTIONS,
    )


def ordered(found):
    """Rows in one order, to compare them."""
    return found.sort_by([(name, "ascending") for name in INTERACTIONS.names]).to_pylist()


@pytest.mark.parametrize("count", [1, 500, COPY_FROM + 500])
@pytest.mark.parametrize("named", [False, True])
def test_a_batch_is_written_once(records, count, named):
    """Sent again, whole or in part, nothing is written twice; both ways of writing do so."""
    batch = many(count, named=named)
    assert records.interactions.append("shop", batch) == Appended(count, 0)
    assert records.interactions.append("shop", batch) == Appended(0, count)
    assert records.interactions.count("shop") == count
    more = many(count + 3, named=named)
    assert records.interactions.append("shop", more) == Appended(3, count)
    found = records.interactions.scan("shop")
    assert found.schema == INTERACTIONS
    assert found.num_rows == count + 3


@pytest.mark.parametrize("count", [1, COPY_FROM + 1])
def test_what_is_written_is_read(records, count):
    """A scan gives back every value, on both ways of writing."""
    batch = many(count, named=True)
    records.interactions.append("shop", batch)
    assert ordered(records.interactions.scan("shop")) == ordered(batch)


@pytest.mark.parametrize("count", [2, COPY_FROM + 500])
def test_tables_together_count_as_one_after_the_other(records, count):
    """Each table gets its own numbers, and an event of an earlier one is a duplicate in it."""
    both, none = many(count + 3), INTERACTIONS.empty_table()
    first = both.slice(0, count)
    assert records.interactions.append_each("shop", [first, both, none, both]) == [
        Appended(count, 0),
        Appended(3, count),
        Appended(0, 0),
        Appended(0, count + 3),
    ]
    assert ordered(records.interactions.scan("shop")) == ordered(both)
    assert records.interactions.append_each("shop", []) == []


def test_an_empty_table_is_nothing(records):
    """No rows in, none out; all tables have the schema."""
    none = INTERACTIONS.empty_table()
    assert records.interactions.append("shop", none) == Appended(0, 0)
    for found in (
        records.interactions.scan("shop"),
        records.interactions.history("shop", []),
        records.interactions.history("shop", ["u"]),
        records.interactions.page("shop", "u", limit=9),
    ):
        assert found.schema == INTERACTIONS
        assert found.num_rows == 0


@pytest.mark.parametrize("padding", [0, COPY_FROM])
def test_the_first_of_equal_events_wins(records, padding):
    """Inside a table, the first row of an event id, and of an event without, is kept."""
    batch = table(
        [
            row("z", event_id="e", value=1.0),
            row("a", event_id="e", value=2.0),
            row("b", value=3.0),
            row("b", value=4.0),
            *[row("pad", moment=n) for n in range(padding)],
        ]
    )
    assert records.interactions.append("shop", batch) == Appended(2 + padding, 2)
    found = records.interactions.history("shop", ["a", "b", "z"])
    assert [(r["user_id"], r["value"]) for r in found.to_pylist()] == [("b", 3.0), ("z", 1.0)]


def test_an_event_id_is_an_event_of_its_own(records):
    """Equal events with different ids are different; so is one without an id."""
    batch = table([row(event_id="e1"), row(event_id="e2"), row()])
    assert records.interactions.append("shop", batch) == Appended(3, 0)


def test_catalogs_are_apart(records):
    """An event id of one catalog is free in another."""
    records.catalogs.create(replace(SHOP, id="other"))
    batch = events(("u", "i", 1), event_id="e")
    records.interactions.append("shop", batch)
    assert records.interactions.append("other", batch) == Appended(1, 0)
    assert records.interactions.count("shop") == records.interactions.count("other") == 1


def test_scan_takes_event_types(records):
    """Only interactions of the types named are scanned."""
    records.interactions.append("shop", table([row(), row(event_type="rate", value=4.5)]))
    (found,) = records.interactions.scan("shop", event_types=["rate", "it's"]).to_pylist()
    assert (found["event_type"], found["value"]) == ("rate", 4.5)
    assert records.interactions.scan("shop", event_types=[]).num_rows == 0


def test_history_is_by_user_then_oldest_first(records):
    """One query gives the histories of all users asked for, and no others'."""
    batch = events(("b", "i", 3), ("a", "j", 2), ("b", "k", 1), ("c", "i", 1), ("é", "i", 0))
    records.interactions.append("shop", batch)
    found = records.interactions.history("shop", ["é", "b", "a", "x", "b"]).to_pylist()
    assert [(r["user_id"], r["event_time"]) for r in found] == [
        ("a", 2),
        ("b", 1),
        ("b", 3),
        ("é", 0),
    ]


@pytest.mark.parametrize("users", [1, 200, 25_000])
def test_history_of_any_number_of_users(records, users):
    """There is no limit on how many histories are asked for at once."""
    records.interactions.append("shop", events(("u1", "i", 1), ("u0", "i", 2)))
    found = records.interactions.history("shop", [f"u{n}" for n in range(users)])
    assert found["user_id"].to_pylist() == ["u0", "u1"][:users]


def test_which_of_some_users_had_an_item(records):
    """Those asked for that have an interaction of any type with the item, in that catalog."""
    records.catalogs.create(replace(SHOP, id="other"))
    rows = [row("a", "i"), row("a", "i", 2), row("b", "j"), row("c", "i"), row("é\n", "i")]
    records.interactions.append("shop", table([*rows, row("d", "i", event_type="rate", value=1.0)]))
    had = records.interactions.which_had
    assert had("shop", "i", ["a", "b", "d", "é\n", "nobody"]) == {"a", "d", "é\n"}
    assert had("shop", "i", [*(f"u{n}" for n in range(25_000)), "a"]) == {"a"}
    assert had("other", "i", ["a"]) == had("shop", "i", []) == had("nowhere", "i", ["a"]) == set()


def test_pages_are_latest_first_and_lose_nothing(records):
    """Pages follow each other through moments with several events, by a cursor that is JSON."""
    batch = table(
        [row(item=f"i{n}", moment=n // 3, event_id=f"e{n}" if n % 2 else None) for n in range(10)]
    )
    records.interactions.append("shop", table([*batch.to_pylist(), row("v")]))
    found, before = [], None
    while (page := records.interactions.page("shop", "u", limit=4, before=before)).num_rows:
        found += page.to_pylist()
        before = Place(*json.loads(json.dumps(Place.of_last(page))))
    assert [r["item_id"] for r in found] == [f"i{n}" for n in reversed(range(10))]


@pytest.mark.parametrize("count", [300, COPY_FROM + 300])
@pytest.mark.parametrize("named", [False, True])
def test_writers_of_one_batch_write_it_once(records, count, named):
    """Four threads append the same events at once: each is written by one of them."""
    batches = [many(count, named=named).slice(n) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda b: records.interactions.append("shop", b), batches))
    assert sum(d.written for d in done) == records.interactions.count("shop") == count


@pytest.mark.parametrize("padding", [0, COPY_FROM])
def test_hostile_texts_are_stored_as_they_are(records, padding):
    """Quotes, escapes, placeholders and emoji are characters like others, on both ways."""
    rows = [
        row(a, b, moment=n, event_id=a + b)
        for n, (a, b) in enumerate(zip(EDGES, reversed(EDGES), strict=True))
    ]
    batch = table(rows + [row("pad", moment=n) for n in range(padding)])
    assert records.interactions.append("shop", batch).written == len(EDGES) + padding
    found = records.interactions.history("shop", EDGES)
    assert sorted(found["user_id"].to_pylist()) == sorted(EDGES)
    assert ordered(found) == ordered(table(rows))


def test_the_longest_ids_fit(records):
    """All three ids may have 256 bytes, and times any 64 bits."""
    long = [c * 256 for c in "uie"]
    batch = table(
        [
            row(long[0], long[1], moment=2**63 - 1, event_id=long[2]),
            row(long[0], long[1], moment=-(2**63)),
        ]
    )
    assert records.interactions.append("shop", batch) == Appended(2, 0)
    assert ordered(records.interactions.scan("shop")) == ordered(batch)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request, tmp_path_factory):
    """Records that all examples of a property share."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('records')}/records.db"
    else:
        url = fresh_database(request.getfixturevalue("postgres_url"))
    opened = Records.open(url)
    opened.catalogs.create(SHOP)
    yield opened
    opened.close()


few = st.sampled_from(["a", "b", "'"])
rows = st.builds(
    row,
    user=few,
    item=few,
    moment=st.integers(0, 2),
    event_id=st.none() | few,
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(batches=st.lists(st.lists(rows, max_size=12), max_size=4))
def test_appends_agree_with_a_dictionary(shared, batches):
    """Whatever comes in whatever batches, the first event of each identity is what is kept."""
    shared.catalogs.delete("shop", force=True)
    shared.catalogs.create(SHOP)
    kept = {}
    for batch in batches:
        before = len(kept)
        for r in batch:
            identity = r["event_id"] or (r["user_id"], r["item_id"], r["event_time"])
            kept.setdefault(identity, r)
        done = shared.interactions.append("shop", table(batch))
        assert done == Appended(len(kept) - before, len(batch) - len(kept) + before)
    assert ordered(shared.interactions.scan("shop")) == ordered(table(list(kept.values())))


def test_users_are_listed_by_the_bytes_of_their_ids(records):
    """Pages of users hold each with interactions once, whatever the ids, and nobody else."""
    ids = ["a", "Z", "é", "zz", "a b", "😀", "'", "aa"]
    records.catalogs.create(replace(SHOP, id="other"))
    records.interactions.append("shop", table([row(u, i) for u in ids for i in "ijk"]))
    records.interactions.append("other", table([row("stranger")]))
    expected = sorted(ids, key=str.encode)

    found, page = [], records.interactions.users("shop", limit=3)
    while page:
        found += page
        page = records.interactions.users("shop", after=page[-1], limit=3)

    assert found == expected
    assert records.interactions.count_users("shop") == len(ids)
    assert records.interactions.count_users("shop", after=expected[5]) == 2
    assert records.interactions.count_users("shop", after=expected[-1]) == 0


def test_users_of_a_missing_catalog(records):
    """There is nobody to list in a catalog that is not there."""
    for ask in (partial(records.interactions.users, limit=1), records.interactions.count_users):
        with pytest.raises(NotFound):
            ask("nowhere")


def test_users_are_counted_over_several_statements(records, monkeypatch):
    """Where one statement can't count all, the next goes on after it."""
    monkeypatch.setattr("milvine.records.users._COUNTED", 3)
    records.interactions.append("shop", table([row(f"u{n}") for n in range(9)]))

    assert records.interactions.count_users("shop") == 9
