"""Importing items and users."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from milvine.domain.catalog import Catalog, Field, FieldType
from milvine.domain.entity import Entity, FieldValue, Side, from_micros, id_fault, value_fault
from milvine.domain.interaction import MAX_EVENT_TIME, MIN_EVENT_TIME
from milvine.ingest.columns import NO_TEXT, is_text, to_text
from milvine.ingest.files import Chunk
from milvine.ingest.opening import open_reader
from milvine.ingest.picking import pick, refusal
from milvine.ingest.report import ImportReport, Progress, Tally, tally
from milvine.ingest.source import Plan, Source, Target, TimeFormat, needed, plan
from milvine.ingest.times import NO_TIME, to_time
from milvine.ingest.utf8 import find_marks
from milvine.ingest.values import Refused, cast_value
from milvine.ingest.writing import write_behind
from milvine.records import Records

_BATCH_ROWS = 5_000
"""Rows of a transaction."""


@dataclass(frozen=True, slots=True)
class _Batch:
    entities: tuple[Entity, ...]
    new: int
    """How many of the ids no row before has."""
    repeated: int
    """How many rows had an id of a row before, here or in an earlier batch."""
    bytes_done: int


@dataclass(frozen=True, slots=True)
class _Column:
    values: list[FieldValue | None]
    faults: list[tuple[int, str]]
    """(row, reason); the values there are None."""


def import_entities(
    records: Records,
    catalog: Catalog,
    side: Side,
    source: Source,
    *,
    on_progress: Callable[[Progress], None],
    rejects_path: Path | None = None,
) -> ImportReport:
    """Import a file of items or users into the catalog.

    Our columns are `id` (in the file also `item_id` or `user_id`) and the fields that the catalog
    declares. A missing value is an empty cell, null, or a column that is not there. A row replaces
    the item of its id as a whole, and the last row of an id wins.

    Args:
        records: where the catalog is.
        catalog: declares the fields.
        side: whether the rows are items or users.
        source: the file, and which of its columns mean what.
        on_progress: called in this thread after each batch.
        rejects_path: a file to write every refusal to, JSONL or `.csv`.

    Raises:
        InvalidArgument: the file can't be read, or has not the columns.
        NotFound: there is no such catalog.
        Unavailable: the database does not answer; batches before it are written.
    """
    fields = side.fields(catalog)
    targets = [
        Target("id", (f"{side}_id",), is_required=True),
        *(Target(f.name) for f in fields),
    ]
    reader = open_reader(source, needed(source, targets))
    chosen = plan(source, targets, reader.column_names)
    total = source.path.stat().st_size

    def write(batch: _Batch) -> None:
        if batch.entities:
            records.entities.upsert(catalog.id, side, batch.entities)

    with tally(rejects_path) as counts:
        chunks = _sliced(reader.chunks(chosen.wanted))
        parsed = ((chunk, _parse(chunk, source, chosen, fields, counts)) for chunk in chunks)
        for batch, _ in write_behind(write, _last_of_each(parsed)):
            counts.written += batch.new
            counts.duplicates += batch.repeated
            on_progress(counts.progress(batch.bytes_done, total))
        return counts.report(chosen.ignored(reader.column_names))


def _sliced(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Cut chunks into batches; what is told once goes with the first."""
    for chunk in chunks:
        for start in range(0, max(len(chunk.rows), 1), _BATCH_ROWS):
            part = slice(start, start + _BATCH_ROWS)
            yield Chunk(
                {name: column[part] for name, column in chunk.columns.items()},
                chunk.rows[part],
                chunk.bytes_done,
                chunk.refusals if start == 0 else (),
                chunk.blank if start == 0 else 0,
                chunk.has_marks,
            )


def _last_of_each(parsed: Iterator[tuple[Chunk, list[Entity]]]) -> Iterator[_Batch]:
    """Yield batches in which each id stands once."""
    seen: set[str] = set()
    for chunk, entities in parsed:
        last = {entity.id: entity for entity in entities}
        new = len(last.keys() - seen)
        seen |= last.keys()
        yield _Batch(tuple(last.values()), new, len(entities) - new, chunk.bytes_done)


def _parse(
    chunk: Chunk, source: Source, chosen: Plan, fields: tuple[Field, ...], counts: Tally
) -> list[Entity]:
    """The entities of the good rows; the others are counted."""
    names = ["id", *(f.name for f in fields)]
    arrays = {name: pick(chunk, name, source, chosen) for name in names}
    casted = [
        _ids(arrays["id"]),
        *(_cast(arrays[f.name], f.type, source) for f in fields),
    ]
    faults = {
        (row, name): reason
        for name, column in zip(names, casted, strict=True)
        for row, reason in (*column.faults, *_marked(chunk, arrays[name]))
    }
    refused = [refusal(chunk, row, name, faults[row, name], arrays) for row, name in faults]
    counts.read += len(chunk.rows) + len(chunk.refusals)
    counts.blank += chunk.blank
    counts.refuse(sorted([*chunk.refusals, *refused], key=lambda r: r.row))
    bad = {row for row, _ in faults}
    return _entities(names[1:], [column.values for column in casted], bad)


def _entities(
    names: list[str], columns: list[list[FieldValue | None]], bad: set[int]
) -> list[Entity]:
    return [
        Entity(str(id_), {n: v for n, v in zip(names, values, strict=True) if v is not None})
        for row, (id_, *values) in enumerate(zip(*columns, strict=True))
        if row not in bad
    ]


def _marked(chunk: Chunk, array: pa.Array) -> Iterator[tuple[int, str]]:
    if chunk.has_marks and is_text(array.type):
        for row in np.flatnonzero(find_marks(array)).tolist():
            yield row, "must be in UTF-8"


def _ids(array: pa.Array) -> _Column:
    casted = to_text(array)
    values: list[FieldValue | None] = casted.array.to_pylist()
    found = ((row, id_fault(str(value or ""))) for row, value in enumerate(values))
    faults = {row: fault for row, fault in found if fault}
    faults |= dict.fromkeys(np.flatnonzero(casted.bad).tolist(), NO_TEXT)
    return _Column(values, list(faults.items()))


def _cast(array: pa.Array, kind: FieldType, source: Source) -> _Column:
    if kind is FieldType.TIMESTAMP:
        return _cast_times(array, source.time_format)
    if pt.is_temporal(array.type):
        array = array.cast(pa.string())
    values: list[FieldValue | None] = []
    faults: list[tuple[int, str]] = []
    for row, raw in enumerate(array.to_pylist()):
        value: FieldValue | None = None
        try:
            value = cast_value(raw, kind, source.list_separator)
        except Refused as exc:
            faults.append((row, str(exc)))
        if value is not None and (fault := value_fault(value, kind)):
            faults.append((row, fault))
        values.append(value)
    return _Column(values, faults)


def _cast_times(array: pa.Array, time_format: TimeFormat) -> _Column:
    casted = to_time(array, time_format)
    values: list[FieldValue | None] = []
    faults = [(row, NO_TIME) for row in np.flatnonzero(casted.bad).tolist()]
    for row, micros in enumerate(casted.array.to_pylist()):
        is_valid = micros is not None and MIN_EVENT_TIME <= micros <= MAX_EVENT_TIME
        if micros is not None and not is_valid:
            faults.append((row, "must be in the years 1 to 9999"))
        values.append(from_micros(micros) if is_valid else None)
    return _Column(values, faults)
