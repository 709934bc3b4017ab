"""Importing interactions: columns are cast, checked and written as Arrow tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from milvine.domain.catalog import Catalog
from milvine.domain.errors import InvalidArgument
from milvine.domain.interaction import INTERACTIONS, Appended, check_interactions
from milvine.ingest import columns
from milvine.ingest.files import Chunk
from milvine.ingest.opening import open_reader
from milvine.ingest.picking import Fault, cell_faults, pick, refusal, refusals
from milvine.ingest.report import ImportReport, Progress, Refusal, Tally, tally
from milvine.ingest.source import Plan, Source, Target, TimeFormat, needed, plan
from milvine.ingest.times import NO_TIME, to_time
from milvine.ingest.writing import write_behind
from milvine.records import Records

_BATCH_ROWS = 200_000
"""Rows of a transaction, at least."""
_UNDATED = 0
"""The time of an interaction without one: the same each time its file is imported, so that it is
known again, and older than any dated one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    table: pa.Table
    bytes_done: int


def import_interactions(
    records: Records,
    catalog: Catalog,
    source: Source,
    *,
    on_progress: Callable[[Progress], None],
    rejects_path: Path | None = None,
) -> ImportReport:
    """Import a file of interactions into the catalog.

    A row that breaks a rule is refused with a reason, and the others are written, many to a
    transaction. Importing a file again, or the rest of it after a crash, writes nothing twice. An
    interaction without a time counts as one of 1970.

    Args:
        records: where the catalog is.
        catalog: declares the event types.
        source: the file, and which of its columns mean what.
        on_progress: called in this thread after each batch.
        rejects_path: a file to write every refusal to, JSONL or `.csv`.

    Raises:
        InvalidArgument: the file can't be read, or has not the columns.
        NotFound: there is no such catalog.
        Unavailable: the database does not answer; batches before it are written.
    """
    _check_constants(source, catalog)
    targets = _targets(catalog)
    reader = open_reader(source, needed(source, targets))
    chosen = plan(source, targets, reader.column_names)
    total = source.path.stat().st_size

    def write(batch: _Batch) -> Appended:
        if not batch.table.num_rows:
            return Appended(0, 0)
        return records.interactions.append(catalog.id, batch.table)

    with tally(rejects_path) as counts:
        chunks = reader.chunks(chosen.wanted)
        batches = (_batch(chunk, source, chosen, catalog, counts) for chunk in chunks)
        for batch, appended in write_behind(write, _gathered(batches)):
            counts.written += appended.written
            counts.duplicates += appended.duplicates
            on_progress(counts.progress(batch.bytes_done, total))
        return counts.report(chosen.ignored(reader.column_names))


def _targets(catalog: Catalog) -> list[Target]:
    required = {"user_id", "item_id"} | ({"event_type"} if len(catalog.event_types) > 1 else set())
    return [Target(name, is_required=name in required) for name in INTERACTIONS.names]


def _check_constants(source: Source, catalog: Catalog) -> None:
    name = source.constants.get("event_type")
    if name is not None and catalog.event_type(name) is None:
        declared = ", ".join(event.name for event in catalog.event_types)
        raise InvalidArgument.at(
            "constants.event_type", f"{name!r} is not declared by the catalog: {declared}"
        )


def _batch(chunk: Chunk, source: Source, chosen: Plan, catalog: Catalog, counts: Tally) -> _Batch:
    """The good rows of the chunk; the others are counted."""
    arrays = {name: pick(chunk, name, source, chosen) for name in INTERACTIONS.names}
    table, faults = _cast(chunk, arrays, source.time_format)
    refused = [*chunk.refusals, *refusals(chunk, faults, arrays)]
    places = np.arange(table.num_rows)
    if faults:
        places = np.flatnonzero(~np.logical_or.reduce([fault.rows for fault in faults]))
        table = table.take(pa.array(places))
    good, rejections = check_interactions(table, catalog, now_micros=_UNDATED)
    refused += [refusal(chunk, int(places[r.row]), r.column, r.reason, arrays) for r in rejections]
    counts.read += len(chunk.rows) + len(chunk.refusals)
    counts.blank += chunk.blank
    counts.refuse(sorted(refused, key=_row))
    return _Batch(good, chunk.bytes_done)


def _gathered(batches: Iterator[_Batch]) -> Iterator[_Batch]:
    """Join small batches, as some readers give."""
    waiting: list[_Batch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(b.table.num_rows for b in waiting) >= _BATCH_ROWS:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[_Batch]) -> _Batch:
    return _Batch(pa.concat_tables(b.table for b in batches), batches[-1].bytes_done)


def _row(refusal: Refusal) -> int:
    return refusal.row


def _cast(
    chunk: Chunk, arrays: dict[str, pa.Array], time_format: TimeFormat
) -> tuple[pa.Table, list[Fault]]:
    """The columns as INTERACTIONS has them, with nulls where a fault is told."""
    cast: dict[str, pa.Array] = {}
    faults: list[Fault] = []
    for name, array in arrays.items():
        match name:
            case "value":
                casted, reason = columns.to_double(array), columns.NO_NUMBER
            case "event_time":
                casted, reason = to_time(array, time_format), NO_TIME
            case _:
                casted, reason = columns.to_text(array), columns.NO_TEXT
        cast[name] = casted.array
        faults += cell_faults(chunk, array, Fault(name, reason, casted.bad))
    return pa.table(cast), [fault for fault in faults if fault.rows.any()]
