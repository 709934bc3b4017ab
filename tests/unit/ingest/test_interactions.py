"""Importing interactions: formats, refusals, times, and what happens the second time."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milvine.domain.catalog import Catalog
from milvine.domain.errors import InvalidArgument, NotFound
from milvine.ingest import Format, Progress, Refusal, Source, TimeFormat, import_interactions
from tests.unit.ingest.conftest import FILMS, SHOP

ROWS = [
    {
        "user_id": f"u{i % 7}",
        "item_id": f"ü{i}",
        "event_type": "rate",
        "value": i / 2,
        "event_time": 10**9 + i,
    }
    for i in range(50)
]


def run(records, source: Source, catalog: Catalog = SHOP, **options):
    """Import and return the report."""
    return import_interactions(records, catalog, source, on_progress=lambda _: None, **options)


def write(path: Path, text: str | bytes) -> Path:
    """A file of that content, compressed where the name says so."""
    data = text.encode() if isinstance(text, str) else text
    if path.suffix in COMPRESSIONS:
        with pa.CompressedOutputStream(str(path), COMPRESSIONS[path.suffix]) as file:
            file.write(data)
    else:
        path.write_bytes(data)
    return path


COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


def as_csv(rows, delimiter=",") -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, ROWS[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_parquet(rows) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def stored(records, catalog: Catalog = SHOP) -> list[dict]:
    """All interactions by time and item."""
    rows = records.interactions.scan(catalog.id).to_pylist()
    return sorted(rows, key=lambda r: (r["event_time"], r["item_id"], r["user_id"]))


def counts(report) -> tuple[int, int, int, int]:
    return report.read, report.written, report.duplicates, report.rejected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(
            (name + suffix, content)
            for suffix in ("", *COMPRESSIONS)
            for name, content in (
                ("e.csv", as_csv(ROWS)),
                ("e.tsv", as_csv(ROWS, "\t")),
                ("e.jsonl", "\n".join(map(json.dumps, ROWS))),
            )
        ),
        ("e.parquet", as_parquet(ROWS)),
    ],
)
def test_each_format_gives_the_same_rows(records, tmp_path, name, content):
    """Every format and compression stores the rows, and nothing twice the second time."""
    source = Source(write(tmp_path / name, content))
    assert counts(run(records, source)) == (50, 50, 0, 0)
    assert stored(records) == [
        r | {"event_id": None, "event_time": r["event_time"] * 1_000_000} for r in ROWS
    ]
    assert counts(run(records, source)) == (50, 0, 50, 0)


def test_bad_csv_rows_are_refused_alone(records, tmp_path):
    """Each bad row is told with its line, column, reason and text; the others are written."""
    path = write(
        tmp_path / "e.csv",
        b"user_id,item_id,event_type,value,event_time\n"
        b"u1,i1,view,,1\n"
        b"u2,i2\n"
        b"\n"
        b"u3,i3,rate,good,1\n"
        b"u4,\xff\xfe,view,,1\n"
        b"broken\xff\n"
        b",i5,view,,1\n"
        b"u6,i6,view,,someday\n"
        b"u7,i7,rate,nan,1\n"
        b'u8,"two\nlines",view,,1\n'
        b"u9,i9,view,,999999999999999999999999999999\n"
        b"u10,i10,rate,+4.5, 2001-01-01T00:00:00+01:00\n"
        b"a,b,c,d,e,f\n",
    )
    rejects = tmp_path / "rejects.jsonl"
    report = run(records, Source(path), rejects_path=rejects)
    time = "must be a time: ISO 8601 or a number since 1970, in the time format of the import"
    expected = [
        Refusal(3, "", "must have 5 columns, has 2", "u2,i2"),
        Refusal(5, "value", "must be a number", "good"),
        Refusal(6, "item_id", "must be in UTF-8", r"\xff\xfe"),
        Refusal(7, "", "must have 5 columns, has 1", r"broken\xff"),
        Refusal(8, "user_id", "must be 1 to 256 bytes, is empty", ""),
        Refusal(9, "event_time", time, "someday"),
        Refusal(10, "value", "must be a finite number", "nan"),
        Refusal(
            12, "event_time", "must be in the years 1 to 9999", "999999999999999999999999999999"
        ),
        Refusal(14, "", "must have 5 columns, has 6", "a,b,c,d,e,f"),
    ]
    assert list(report.samples) == expected
    assert counts(report) == (12, 3, 0, 9)
    assert report.blank == 1
    assert sum(report.reasons.values()) == len(expected)
    assert [Refusal(**json.loads(line)) for line in rejects.read_text().splitlines()] == expected
    assert [(r["item_id"], r["event_time"]) for r in stored(records)] == [
        ("i1", 1_000_000),
        ("two\nlines", 1_000_000),
        ("i10", 978_303_600_000_000),
    ]


def test_refusals_go_to_csv_too(records, tmp_path):
    """A rejects file that ends in .csv is CSV."""
    path = write(tmp_path / "e.csv", "user_id,item_id,event_type\nu,i,click\n")
    run(records, Source(path), rejects_path=tmp_path / "rejects.csv")
    with (tmp_path / "rejects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    reason = "must be an event type of the catalog; declared are: view, rate"
    assert rows == [{"row": "2", "column": "event_type", "reason": reason, "text": "click"}]


def test_bad_json_lines_are_refused_alone(records, tmp_path):
    """Each bad line is told with its number; whole numbers are good ids."""
    lines = [
        b'\xef\xbb\xbf{"user_id": 1, "item_id": "a", "event_type": "view"}',
        b'{"user_id": "u", "item_id": "b", "event_type": "view"',
        b"",
        b"[1, 2]",
        b'{"user_id": "\xff", "item_id": "c"}',
        b'{"user_id": "u", "item_id": "d", "event_type": "rate", "value": "4", "event_time": "1"}',
        b'{"user_id": "u", "item_id": "e", "event_type": "rate", "value": true}',
        b'{"user_id": "u", "item_id": null, "event_type": "view"}',
        b'{"user_id": "u", "item_id": "f", "event_type": "rate", "value": 3.5, "event_time": 2}',
    ]
    report = run(records, Source(write(tmp_path / "e.jsonl", b"\n".join(lines))))
    assert report.samples == (
        Refusal(2, "", "must be valid JSON", lines[1].decode()),
        Refusal(4, "", "must be a JSON object", "[1, 2]"),
        Refusal(5, "", "must be in UTF-8", r'{"user_id": "\xff", "item_id": "c"}'),
        Refusal(7, "value", "must be a number", "true"),
        Refusal(8, "item_id", "must be 1 to 256 bytes, is empty", ""),
    )
    assert counts(report) == (8, 3, 0, 5)
    assert report.blank == 1
    assert [(r["user_id"], r["value"], r["event_time"]) for r in stored(records)] == [
        ("1", None, 0),
        ("u", 4.0, 1_000_000),
        ("u", 3.5, 2_000_000),
    ]


def test_many_broken_rows_keep_their_numbers(records, tmp_path, monkeypatch):
    """Numbers stay right over many blocks, and with broken rows between and at both ends."""
    monkeypatch.setattr("milvine.ingest.delimited.BLOCK_BYTES", 700)
    broken = {2, 3, 50, 51, 52, 1000, 1001}
    lines = ["broken" if n in broken else f"u,i{n},bad" for n in range(2, 1002)]
    path = write(tmp_path / "e.csv", "\n".join(["user_id,item_id,value", *lines]))
    rejects = tmp_path / "rejects.jsonl"
    report = run(records, Source(path), FILMS, rejects_path=rejects)
    assert counts(report) == (1000, 0, 0, 1000)
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert {r["row"] for r in told if not r["column"]} == broken
    assert {r["row"] for r in told} == set(range(2, 1002))


def test_mapping_constants_and_files_without_a_header(records, tmp_path):
    """Columns come from where the mapping says, and constants fill the rest."""
    path = write(tmp_path / "u.data", "7\t8\t3\t881250949\n7\t9\t4\t881250950\n")
    source = Source(
        path,
        Format.TSV,
        mapping={"user_id": "a", "item_id": "b", "value": "c", "event_time": "d"},
        constants={"event_type": "rate"},
        column_names=("a", "b", "c", "d", "e")[:4],
    )
    report = run(records, source)
    assert counts(report) == (2, 2, 0, 0)
    assert stored(records)[0] == {
        "event_id": None,
        "user_id": "7",
        "item_id": "8",
        "event_type": "rate",
        "value": 3.0,
        "event_time": 881250949000000,
    }


def test_columns_that_fill_nothing_are_named(records, tmp_path):
    """The report names the columns that were not read."""
    path = write(tmp_path / "e.csv", "user_id,note,item_id,x\nu,n,i,\n")
    source = Source(path, constants={"event_type": "view"})
    assert run(records, source).ignored_columns == ("note", "x")


@pytest.mark.parametrize(
    ("text", "time_format", "micros"),
    [
        ("1700000000", TimeFormat.AUTO, 1_700_000_000_000_000),
        ("1700000000.25", TimeFormat.AUTO, 1_700_000_000_250_000),
        ("1700000000123", TimeFormat.AUTO, 1_700_000_000_123_000),
        ("1700000000123456", TimeFormat.AUTO, 1_700_000_000_123_456),
        ("1700000000123456789", TimeFormat.AUTO, 1_700_000_000_123_456),
        ("-1", TimeFormat.AUTO, -1_000_000),
        ("5000", TimeFormat.MILLISECONDS, 5_000_000),
        ("2024-02-29", TimeFormat.AUTO, 1_709_164_800_000_000),
        ("2024-02-29 12:30:00.5", TimeFormat.AUTO, 1_709_209_800_500_000),
        ("2024-02-29T12:30:00Z", TimeFormat.ISO, 1_709_209_800_000_000),
        ("2024-02-29T12:30:00+02:00", TimeFormat.AUTO, 1_709_202_600_000_000),
        ("", TimeFormat.AUTO, 0),
        ("20240229", TimeFormat.ISO, 1_709_164_800_000_000),
    ],
)
@pytest.mark.parametrize("other", ["7", "nonsense", "2020-01-01T00:00:00Z", "1.5", ""])
def test_times(records, tmp_path, text, time_format, micros, other):
    """A time is read the same, whatever stands in the rows beside it."""
    path = write(tmp_path / "e.csv", f"user_id,item_id,event_time\nu,i,{text}\nv,i,{other}\n")
    source = Source(path, constants={"event_type": "view"}, time_format=time_format)
    run(records, source)
    assert [r["event_time"] for r in stored(records) if r["user_id"] == "u"] == [micros]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1_000_000], pa.timestamp("us")),
        pa.array([1], pa.timestamp("s", "Europe/Berlin")),
        pa.array([1_000_000_000], pa.timestamp("ns")),
        pa.array([1.0], pa.float32()),
        pa.array([1], pa.uint64()),
        pa.array(["1970-01-01T00:00:01"]).dictionary_encode(),
    ],
)
def test_parquet_times_and_ids_keep_their_meaning(records, tmp_path, times):
    """Typed columns are read by their types: numbers as ids, timestamps by their unit."""
    path = tmp_path / "e.parquet"
    columns = {"user_id": [7], "item_id": [8.0], "event_time": times, "value": pa.nulls(1)}
    pq.write_table(pa.table(columns), path)
    assert counts(run(records, Source(path, constants={"event_type": "view"}))) == (1, 1, 0, 0)
    row = stored(records)[0]
    assert (row["user_id"], row["item_id"], row["event_time"]) == ("7", "8", 1_000_000)


def test_parquet_columns_of_wrong_types_are_refused(records, tmp_path):
    """A type that can't be cast refuses the rows that have a value, and no others."""
    path = tmp_path / "e.parquet"
    times = pa.array([True, None])
    columns = {"user_id": ["u", "v"], "item_id": [1.5, 2.0], "event_time": times}
    pq.write_table(pa.table(columns), path)
    report = run(records, Source(path, constants={"event_type": "view"}))
    assert counts(report) == (2, 1, 0, 1)
    assert {column for column, _ in report.reasons} == {"item_id", "event_time"}


@pytest.mark.parametrize(
    ("file", "options", "field", "words"),
    [
        (("none.csv", None), {}, "path", "there is no file"),
        (("e.xls", "x"), {}, "format", "can't be told from the name"),
        (("e.csv", ""), {}, "path", "is empty"),
        (("e.jsonl", ""), {}, "path", "is empty"),
        (("e.parquet", ""), {}, "path", "is empty"),
        (("e.parquet", "no parquet"), {}, "path", "damaged or of another format"),
        (("e.jsonl", "[{}]"), {}, "path", "JSON array"),
        (("e.csv", "user_id".encode("utf-16")), {}, "path", "UTF-16"),
        (("e.csv", "user,item_id\n"), {}, "mapping.user_id", "did you mean 'user'?"),
        (
            ("e.csv", "user_id,item_id\n"),
            {"mapping": {"user_id": "usr_id"}},
            "mapping.user_id",
            "the file has no column 'usr_id' (did you mean 'user_id'?); it has: user_id, item_id",
        ),
        (("e.csv", "user_id,item_id\n"), {"mapping": {"user": "a"}}, "mapping.user", "user_id"),
        (
            ("e.csv", "user_id,item_id\n"),
            {"constants": {"event_type": "click"}},
            "constants.event_type",
            "not declared by the catalog: view, rate",
        ),
        (("e.csv", "user_id,item_id\n"), {}, "mapping.event_type", "give a constant"),
        (("e.csv", "user_id,user_id,item_id\n"), {}, "path", "more than one column"),
        (("e.csv", "a,b\n"), {"delimiter": "::"}, "delimiter", "one ASCII character"),
    ],
)
def test_what_cannot_be_read_is_told(records, tmp_path, file, options, field, words):
    """A file or mapping that can't work is an error that names the field and the way out."""
    name, content = file
    path = tmp_path / name
    if content is not None:
        write(path, content)
    with pytest.raises(InvalidArgument) as error:
        run(records, Source(path, **options))
    told = {v.field: v.description for v in error.value.violations}
    assert words in told[field]


def test_a_header_alone_is_an_empty_import(records, tmp_path):
    """A file with columns and no rows is no error."""
    path = write(tmp_path / "e.csv", "user_id,item_id,event_type\n")
    assert counts(run(records, Source(path))) == (0, 0, 0, 0)


def test_a_file_that_is_cut_off_keeps_what_stood_before(records, tmp_path, monkeypatch):
    """Damage is an error; the rows before it are written, and found again the next time."""
    monkeypatch.setattr("milvine.ingest.delimited.BLOCK_BYTES", 10_000)
    path = tmp_path / "e.csv.gz"
    content = as_csv([r | {"item_id": f"i{n}-{r['item_id']}"} for n in range(200) for r in ROWS])
    whole = gzip.compress(content.encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidArgument, match="cut off"):
        run(records, Source(path))
    kept = len(stored(records))
    path.write_bytes(whole)
    assert counts(run(records, Source(path))) == (10_000, 10_000 - kept, kept, 0)


def test_progress_ends_at_the_size_of_the_file(records, tmp_path):
    """Progress grows to all bytes of the file and all of its rows."""
    path = write(tmp_path / "e.csv.gz", as_csv(ROWS))
    told: list[Progress] = []
    import_interactions(records, SHOP, Source(path), on_progress=told.append)
    size = path.stat().st_size
    assert told[-1] == Progress(size, size, 50, 50, 0, 0)
    assert [p.bytes_done for p in told] == sorted(p.bytes_done for p in told)


def test_an_unknown_catalog_is_not_found(records, tmp_path):
    """The database's refusal comes through, and threads end."""
    path = write(tmp_path / "e.csv", as_csv(ROWS))
    unknown = Catalog("unknown", SHOP.event_types)
    with pytest.raises(NotFound):
        run(records, Source(path), unknown)


def late_members(path: Path, *, first: dict, then: dict) -> Path:
    """A JSONL file whose last line has members that the lines of its first block have not."""
    rows = [first | {"user_id": f"u{i}", "item_id": "i"} for i in range(40_000)]
    lines = [json.dumps(row) for row in [*rows, {"user_id": "late", "item_id": "i"} | then]]
    return write(path, "\n".join(lines))


def test_members_that_come_late_are_read(records, tmp_path):
    """A member that stands in the last line of a large file only is kept, or reported."""
    then = {"event_time": 5, "event_id": "e1", "note": "x"}
    path = late_members(tmp_path / "e.jsonl", first={"seen_by": "tv"}, then=then)
    report = run(records, Source(path, constants={"event_type": "view"}))
    assert counts(report) == (40_001, 40_001, 0, 0)
    assert report.ignored_columns == ("seen_by", "note")
    (late,) = [row for row in stored(records) if row["user_id"] == "late"]
    assert (late["event_time"], late["event_id"]) == (5_000_000, "e1")


def test_a_mapped_member_may_come_late(records, tmp_path):
    """A mapping is refused only where no line of the file has its member."""
    path = late_members(tmp_path / "e.jsonl", first={}, then={"at": 5})
    constants = {"event_type": "view"}
    report = run(records, Source(path, mapping={"event_time": "at"}, constants=constants))
    assert counts(report) == (40_001, 40_001, 0, 0)
    assert report.ignored_columns == ()
    with pytest.raises(InvalidArgument, match="no column 'when'"):
        run(records, Source(path, mapping={"event_time": "when"}, constants=constants))
