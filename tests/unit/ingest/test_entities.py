"""Importing items and users: typing, missing values, ids that stand twice."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milvine.domain.entity import Side
from milvine.domain.errors import InvalidArgument
from milvine.ingest import Refusal, Source, import_entities
from tests.unit.ingest.conftest import SHOP

FULL = {
    "title": "Alien",
    "year": 1979,
    "price": 9.5,
    "new": False,
    "released": datetime(1979, 5, 25, tzinfo=UTC),
    "genres": ("Horror", "Sci-Fi"),
    "sizes": (1, -2),
}
HEADER = "item_id,title,year,price,new,released,genres,sizes,note\n"


def run(records, path, **options):
    """Import items and return the report."""
    source = Source(path, **options)
    return import_entities(records, SHOP, Side.ITEM, source, on_progress=lambda _: None)


def stored(records) -> dict[str, dict[str, object]]:
    """The fields of all items by id."""
    found = records.entities.list(SHOP.id, Side.ITEM, limit=1_000)
    return {entity.id: dict(entity.fields) for entity in found}


def counts(report) -> tuple[int, int, int, int]:
    return report.read, report.written, report.duplicates, report.rejected


def test_csv_cells_take_the_types_of_their_fields(records, tmp_path):
    """Text becomes what the catalog declares; an empty cell is a missing value."""
    path = tmp_path / "items.csv"
    path.write_text(
        HEADER
        + "a,Alien,1979.0,9.5,0,1979-05-25,Horror| Sci-Fi,1|-2,x\n"
        + 'b,Alien,1979,95e-1,False,296438400,"[""Horror"", ""Sci-Fi""]","[1, -2]",\n'
        + "c,,,,,,,,\n"
    )
    report = run(records, path)
    assert counts(report) == (3, 3, 0, 0)
    assert report.ignored_columns == ("note",)
    assert stored(records) == {"a": FULL, "b": FULL, "c": {}}


def test_json_and_parquet_values_keep_their_types(records, tmp_path):
    """Lists, numbers and times come typed, and null is a missing value."""
    released = FULL["released"]
    rows = [
        FULL | {"id": "a", "genres": ["Horror", "Sci-Fi"], "sizes": [1, -2]},
        dict.fromkeys(FULL) | {"id": "b", "genres": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "items.parquet")
    assert counts(run(records, tmp_path / "items.parquet")) == (2, 2, 0, 0)
    assert stored(records) == {"a": FULL, "b": {"genres": ()}}
    rows[0] |= {"id": "c", "released": released.isoformat(), "genres": "Horror|Sci-Fi"}
    rows[1] |= {"id": 4}
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert counts(run(records, tmp_path / "items.jsonl")) == (2, 2, 0, 0)
    assert {k: v for k, v in stored(records).items() if k in "c4"} == {
        "c": FULL,
        "4": {"genres": ()},
    }


def test_bad_cells_refuse_their_row_with_a_reason(records, tmp_path):
    """Each fault is told with its field; a row with two counts once."""
    path = tmp_path / "items.csv"
    path.write_bytes(
        HEADER.encode()
        + b"a,Alien,1979.5,9.5,0,,,,\n"
        + b"b,Alien,,nine,maybe,,,,\n"
        + b",Alien,,,,,,,\n"
        + b"d,\xff,,,,,,,\n"
        + b"e,Alien,9223372036854775808,,,99999-01-01,,1|x,\n"
        + b'f,,,,,,"[1, {}]",,\n'
        + b"g,Alien,,1e999,,,,,\n"
        + b"too,short\n"
        + b"h,good,,,,,,,\n"
    )
    report = run(records, path)
    whole = "must be a whole number of 64 bits"
    time = "must be a time: ISO 8601 or a number since 1970, in the time format of the import"
    assert set(report.samples) == {
        Refusal(2, "year", whole, "1979.5"),
        Refusal(3, "price", "must be a number", "nine"),
        Refusal(3, "new", "must be true, false, 1 or 0", "maybe"),
        Refusal(4, "id", "must be 1 to 256 bytes, is 0", ""),
        Refusal(5, "title", "must be in UTF-8", r"\xff"),
        Refusal(6, "year", whole, "9223372036854775808"),
        Refusal(6, "released", time, "99999-01-01"),
        Refusal(6, "sizes", whole, "1|x"),
        Refusal(7, "genres", "must be text", "[1, {}]"),
        Refusal(8, "price", "must be a finite number", "1e999"),
        Refusal(9, "", "must have 9 columns, has 2", "too,short"),
    }
    assert counts(report) == (9, 1, 0, 8)
    assert stored(records) == {"h": {"title": "good"}}


@pytest.mark.parametrize("batch_rows", [2, 5_000])
def test_the_last_row_of_an_id_wins(records, tmp_path, monkeypatch, batch_rows):
    """Rows whose id a later one has are counted as duplicates, in one batch and over many."""
    monkeypatch.setattr("milvine.ingest.entities._BATCH_ROWS", batch_rows)
    path = tmp_path / "items.csv"
    path.write_text("id,year\na,1\nb,1\na,2\na,3\nb,x\nc,1\n")
    assert counts(run(records, path)) == (6, 3, 2, 1)
    assert stored(records) == {"a": {"year": 3}, "b": {"year": 1}, "c": {"year": 1}}
    assert counts(run(records, path)) == (6, 3, 2, 1)


def test_mapping_of_fields(records, tmp_path):
    """Fields come from the columns that the mapping names, lists by the separator that is given."""
    path = tmp_path / "items.tsv"
    path.write_text("movie\tname\tclass\n1\tAlien\tHorror Sci-Fi\n")
    mapping = {"id": "movie", "title": "name", "genres": "class"}
    run(records, path, mapping=mapping, list_separator=" ")
    assert stored(records) == {"1": {"title": "Alien", "genres": ("Horror", "Sci-Fi")}}


@pytest.mark.parametrize(
    ("mapping", "field", "words"),
    [
        ({}, "mapping.id", "map one of: movie, name"),
        ({"id": "movie", "titel": "name"}, "mapping.titel", "did you mean 'title'"),
        ({"id": "movies"}, "mapping.id", "did you mean 'movie'"),
    ],
)
def test_mappings_that_cannot_work(records, tmp_path, mapping, field, words):
    """A mapping to or from a column that is not there is an error that says which ones are."""
    path = tmp_path / "items.csv"
    path.write_text("movie,name\n1,Alien\n")
    with pytest.raises(InvalidArgument) as error:
        run(records, path, mapping=mapping)
    assert words in {v.field: v.description for v in error.value.violations}[field]


def test_users_have_their_own_id_column_and_fields(records, tmp_path):
    """The id of users is found as `user_id`, and items are left alone."""
    path = tmp_path / "users.csv"
    path.write_text("user_id,title\nu,x\n")
    report = import_entities(records, SHOP, Side.USER, Source(path), on_progress=lambda _: None)
    assert counts(report) == (1, 1, 0, 0)
    assert report.ignored_columns == ("title",)
    assert records.entities.count(SHOP.id, Side.USER) == 1
    assert stored(records) == {}


def test_a_field_that_comes_late_in_json_is_kept(records, tmp_path):
    """A field that stands in the last line of a large file only fills its item."""
    lines = [json.dumps({"item_id": f"i{n}", "title": "x" * 40}) for n in range(20_000)]
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join([*lines, json.dumps({"item_id": "last", "year": 1979, "id": "?"})]))
    report = run(records, path)
    assert counts(report) == (20_001, 20_001, 0, 0)
    assert report.ignored_columns == ("id",)
    (last,) = records.entities.get(SHOP.id, Side.ITEM, ["last"])
    assert last.fields == {"year": 1979}
