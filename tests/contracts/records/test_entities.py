"""Items and users, and the order of their changes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import (
    ARROW_TYPES,
    INT64_MAX,
    INT64_MIN,
    MAX_ID_BYTES,
    Entity,
    Side,
    to_micros,
)
from milvine.records import Records
from milvine.records.codec import dump_fields, load_fields
from tests.contracts.records.conftest import SHOP
from tests.servers.postgres import fresh_database

HOSTILE = [
    "a",
    "A",
    "é",
    "e\u0301",
    "'; --",
    '"',
    "%s",
    "?",
    "$1",
    ":x",
    "\n",
    " ",
    "😀",
    "\\",
    "ß",
]

ids = st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1
).filter(lambda text: len(text.encode()) <= MAX_ID_BYTES)
values = st.one_of(
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    st.integers(INT64_MIN, INT64_MAX),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple),
    st.lists(st.integers(INT64_MIN, INT64_MAX)).map(tuple),
)


def put(records, *names, side=Side.ITEM, **fields):
    records.entities.upsert("shop", side, [Entity(name, fields) for name in names])


def pages(records, since, limit):
    """Every change after a revision, page by page."""
    found, place = [], (since, "")
    while page := records.entities.changes(
        "shop", Side.ITEM, since=place[0], after_id=place[1], limit=limit
    ):
        found += page
        place = (page[-1].revision, page[-1].id)
    return found


def test_get_keeps_the_order_asked(records):
    """Those that exist come in the order of the ids, also twice."""
    put(records, "a", "b", "c")
    found = records.entities.get("shop", Side.ITEM, ["c", "x", "a", "c"])
    assert [e.id for e in found] == ["c", "a", "c"]


def test_sides_are_apart(records):
    """An item and a user may have one id."""
    put(records, "a", year=1)
    put(records, "a", side=Side.USER, age=2)
    assert records.entities.get("shop", Side.ITEM, ["a"])[0].fields == {"year": 1}
    assert records.entities.get("shop", Side.USER, ["a"])[0].fields == {"age": 2}


def test_upsert_replaces_and_keeps_the_time_of_creation(records):
    """A second upsert replaces all fields; the creation stays."""
    put(records, "a", title="x", year=1)
    (before,) = records.entities.get("shop", Side.ITEM, ["a"])
    put(records, "a", year=2)
    (after,) = records.entities.get("shop", Side.ITEM, ["a"])
    assert after.fields == {"year": 2}
    assert after.create_time == before.create_time == before.update_time
    assert after.update_time > before.update_time


def test_the_last_of_one_id_counts(records):
    """A batch may name an id twice."""
    batch = [Entity("a", {"year": 1}), Entity("b"), Entity("a", {"year": 2})]
    records.entities.upsert("shop", Side.ITEM, batch)
    assert records.entities.get("shop", Side.ITEM, ["a"])[0].fields == {"year": 2}
    assert records.entities.count("shop", Side.ITEM) == 2


def test_a_batch_is_written_whole_or_not_at_all(records):
    """An entity that can't be stored leaves none of its batch, nor a revision."""
    with pytest.raises(TypeError):
        records.entities.upsert("shop", Side.ITEM, [Entity("a"), Entity("b", {"x": object()})])
    assert records.entities.count("shop", Side.ITEM) == 0
    assert records.catalogs.revision("shop") == 0


def test_lists_page_by_the_bytes_of_ids(records):
    """Any id is listed once, in the order of UTF-8 on both databases."""
    put(records, *HOSTILE)
    found, after = [], None
    while page := records.entities.list("shop", Side.ITEM, limit=4, after=after):
        found += [e.id for e in page]
        after = page[-1].id
    assert found == sorted(HOSTILE, key=str.encode)


def test_delete_leaves_a_tombstone(records):
    """A deleted entity is gone for readers, and a change for followers."""
    put(records, "a", "b")
    assert records.entities.delete("shop", Side.ITEM, ["a"]) == 1
    assert records.entities.delete("shop", Side.ITEM, ["a"]) == 0
    assert records.entities.get("shop", Side.ITEM, ["a"]) == []
    assert [e.id for e in records.entities.list("shop", Side.ITEM, limit=9)] == ["b"]
    assert records.entities.count("shop", Side.ITEM) == 1
    (change,) = records.entities.changes("shop", Side.ITEM, since=1, limit=9)
    assert (change.id, change.revision, change.entity) == ("a", 2, None)


def test_what_only_interactions_know_is_deleted_too(records):
    """An id without an entity gets a tombstone and counts for none; later deletions keep it."""
    put(records, "a")
    assert records.entities.delete("shop", Side.ITEM, ["x", "a", "x"]) == 1
    assert records.entities.delete("shop", Side.ITEM, ["x"]) == 0
    found = records.entities.changes("shop", Side.ITEM, since=0, limit=9)
    assert [(c.id, c.revision, c.entity) for c in found] == [("a", 2, None), ("x", 2, None)]
    assert records.entities.list("shop", Side.ITEM, limit=9) == []
    put(records, "x", year=1)
    assert records.entities.get("shop", Side.ITEM, ["x"])[0].fields == {"year": 1}


def test_changes_end_at_a_revision(records):
    """Changes after `until` are left out, also one that was before it and came again."""
    put(records, "a")
    put(records, "b", "c")
    put(records, "b", "d")
    found = records.entities.changes("shop", Side.ITEM, since=0, until=2, limit=9)
    assert [(c.id, c.revision) for c in found] == [("a", 1), ("c", 2)]


def test_a_deleted_entity_can_come_back(records):
    """An upsert revives the id as a new entity."""
    put(records, "a", year=1)
    (old,) = records.entities.get("shop", Side.ITEM, ["a"])
    records.entities.delete("shop", Side.ITEM, ["a"])
    put(records, "a", year=2)
    (new,) = records.entities.get("shop", Side.ITEM, ["a"])
    assert new.fields == {"year": 2}
    assert new.create_time > old.create_time


def test_changes_come_by_revision_and_page_without_loss(records):
    """Pages smaller than a revision lose nothing of it, and end."""
    names = [f"{n:02}" for n in range(25)]
    put(records, *names[:20])
    put(records, *names[10:])
    put(records, "u", side=Side.USER)
    records.entities.delete("shop", Side.ITEM, names[:3])
    found = pages(records, since=0, limit=4)
    assert [(c.revision, c.id) for c in found] == [
        *[(1, name) for name in names[3:10]],
        *[(2, name) for name in names[10:]],
        *[(4, name) for name in names[:3]],
    ]
    assert records.catalogs.revision("shop") == 4
    assert [c.id for c in pages(records, since=2, limit=4)] == names[:3]


def test_scan_gives_everything_once(records):
    """A scan has the living and the dead, by id."""
    put(records, *HOSTILE)
    records.entities.delete("shop", Side.ITEM, ["é"])
    found = [c for batch in records.entities.scan("shop", Side.ITEM, batch=4) for c in batch]
    assert [c.id for c in found] == sorted(HOSTILE, key=str.encode)
    assert [c.id for c in found if c.entity is None] == ["é"]


def test_changes_miss_nothing_under_concurrent_upserts(records):
    """A follower of four writers sees each write, though they commit at the same time."""
    writers = [
        threading.Thread(target=lambda w=w: [put(records, f"{w}-{n}") for n in range(20)])
        for w in range(4)
    ]
    for writer in writers:
        writer.start()
    seen, place = [], (0, "")
    while len(seen) < 80:
        alive = any(writer.is_alive() for writer in writers)
        page = records.entities.changes(
            "shop", Side.ITEM, since=place[0], after_id=place[1], limit=7
        )
        seen += [c.id for c in page]
        place = (page[-1].revision, page[-1].id) if page else place
        assert page or alive, "a change was passed over"
    for writer in writers:
        writer.join()
    assert sorted(seen) == sorted(f"{w}-{n}" for w in range(4) for n in range(20))
    assert records.catalogs.revision("shop") == 80


@given(fields=st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=8))
def test_fields_keep_their_types(fields):
    """Every value comes back equal and of its type, to 64 bits and to the microsecond."""
    found = load_fields(dump_fields(fields))
    assert found == fields
    assert {n: type(v) for n, v in found.items()} == {n: type(v) for n, v in fields.items()}


def test_a_moment_keeps_its_microsecond(records):
    """The ends of the range of integers and moments are stored exactly."""
    moment = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
    fields = {"a": INT64_MIN, "b": INT64_MAX, "c": 1.0, "d": moment, "e": (), "f": (2**53 + 1,)}
    put(records, "a", **fields)
    (found,) = records.entities.get("shop", Side.ITEM, ["a"])
    assert found.fields == fields
    assert type(found.fields["c"]) is float


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


@given(batch=st.dictionaries(ids, st.dictionaries(st.just("title"), values), min_size=1))
def test_any_id_and_value_is_stored(shared, batch):
    """Whatever the characters, what is written is read."""
    entities = [Entity(i, fields) for i, fields in batch.items()]
    shared.entities.upsert("shop", Side.ITEM, entities)
    found = shared.entities.get("shop", Side.ITEM, list(batch))
    assert [(e.id, e.fields) for e in found] == list(batch.items())


EDGES = [
    *("", 'a "quoted" \\ text', "null", "☃\n\t", "😀" * 300, "[1]", "é"),
    *(0, -1, INT64_MIN, INT64_MAX, 2**53 + 1),
    *(0.0, -0.5, 1e308, 5e-324, 1.0),
    *(True, False),
    *(datetime(1, 1, 1, tzinfo=UTC), datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC)),
    *((), ("a", "", 'b"'), (1, INT64_MAX)),
]


def test_values_of_fields_are_as_written(records):
    """The values of fields come back with their types, page by page, of all that exist."""
    for n, value in enumerate(EDGES):
        put(records, f"v{n:02}", a=value, **({"b": n} if n % 2 else {}))
    put(records, "w", c=1)
    put(records, "x", a=1)
    records.entities.delete("shop", Side.ITEM, ["x"])

    found = list(records.entities.values("shop", Side.ITEM, ["b", "a"], batch=4))

    ids = [id_ for page in found for id_ in page.ids]
    read = {name: [v for page in found for v in page.values[name]] for name in "ab"}
    assert ids == [*(f"v{n:02}" for n in range(len(EDGES))), "w"]
    assert [(type(v), v) for v in read["a"]] == [(type(v), v) for v in [*EDGES, None]]
    assert read["b"] == [*(n if n % 2 else None for n in range(len(EDGES))), None]


TYPED = {
    FieldType.STRING: st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    FieldType.INT64: st.integers(INT64_MIN, INT64_MAX),
    FieldType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    FieldType.BOOL: st.booleans(),
    FieldType.TIMESTAMP: st.datetimes(timezones=st.just(UTC)),
    FieldType.STRING_LIST: st.lists(st.sampled_from(HOSTILE), max_size=5).map(tuple),
    FieldType.INT64_LIST: st.lists(st.integers(INT64_MIN, INT64_MAX), max_size=5).map(tuple),
}
COLUMNS = tuple(Field(f"a_{kind.lower()}", kind) for kind in FieldType)


@given(
    st.dictionaries(
        st.sampled_from(HOSTILE),
        st.fixed_dictionaries({}, optional={f.name: TYPED[f.type] for f in COLUMNS}),
    ),
    st.lists(st.sampled_from(COLUMNS), unique=True),
    st.integers(1, 5),
)
def test_a_table_has_what_was_written(shared, rows, fields, batch):
    """Values come back as Arrow columns, whatever they are and however they are read."""
    shared.entities.delete("shop", Side.USER, HOSTILE)
    put(shared, "gone", side=Side.USER)
    shared.entities.delete("shop", Side.USER, ["gone"])
    shared.entities.upsert("shop", Side.USER, [Entity(i, {**v, "z": 1}) for i, v in rows.items()])

    table = shared.entities.table("shop", Side.USER, fields, batch=batch)

    assert table.schema.names == ["id", *(field.name for field in fields)]
    for field in fields:
        assert table.schema.field(field.name).type == ARROW_TYPES[field.type]
    assert table["id"].to_pylist() == sorted(rows, key=str.encode)
    for found in table.to_pylist():
        for field in fields:
            value = rows[found["id"]].get(field.name)
            if isinstance(value, datetime):
                value = to_micros(value)
            assert found[field.name] == (list(value) if isinstance(value, tuple) else value)


def test_long_texts_come_in_tables(records):
    """A row may be larger than what Arrow reads at a time by itself."""
    field = Field("plot", FieldType.STRING)
    put(records, "long", side=Side.USER, plot="é\n" * 2_000_000)
    put(records, "short", side=Side.USER, plot="x")
    table = records.entities.table("shop", Side.USER, [field])
    plots = dict(zip(table["id"].to_pylist(), table["plot"].to_pylist(), strict=True))
    assert (plots["long"], plots["short"]) == ("é\n" * 2_000_000, "x")
    records.entities.delete("shop", Side.USER, ["long", "short"])
