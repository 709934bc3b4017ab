"""Interactions: what users did with items. They travel as Arrow tables, never row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from milvine.domain.catalog import Catalog, ValueMeaning
from milvine.domain.entity import MAX_ID_BYTES, to_micros

INTERACTIONS = pa.schema(
    [
        pa.field("event_id", pa.string()),  # null or the client's id
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("event_time", pa.int64(), nullable=False),  # microseconds since 1970, UTC
    ]
)
"""The columns of interactions between parsing and storing."""

MIN_EVENT_TIME = to_micros(datetime.min.replace(tzinfo=UTC))
MAX_EVENT_TIME = to_micros(datetime.max.replace(tzinfo=UTC))
"""The first and the last microsecond that an event can have: years 1 to 9999."""

MAX_VALUE = 1e9
"""How large a value can be, of either sign: models square and sum them in 32 bits."""

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a batch of interactions: each is durable, now or from before."""

    written: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that breaks a rule."""

    row: int
    """The row of the table, from 0."""
    column: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class _Fault:
    """A rule of a column, and the rows that break it: (rows,) bool."""

    column: str
    reason: str
    rows: _Mask


def check_interactions(
    table: pa.Table, catalog: Catalog, *, now_micros: int
) -> tuple[pa.Table, list[Rejection]]:
    """The rows that obey the rules of `interaction.proto`, and why the others do not.

    An empty or null `event_id` becomes null, an empty or null `event_type` the only one of the
    catalog, a null `event_time` becomes `now_micros`.

    Args:
        table: the columns of INTERACTIONS in any order, each of which may have nulls.
        catalog: what the event types are.
        now_micros: microseconds since 1970, UTC.

    Returns:
        The good rows in their order, as INTERACTIONS, and the rejections by row, then by column:
        at most one for each column of a row. Reasons hold no text of the row, so that they can be
        counted.
    """
    # Whole columns as numpy views: an Arrow kernel costs ten times as much to call, which counts
    # for the tables of a few rows that servers check. Kernels run on the rare paths.
    columns = {name: _column(table, name) for name in INTERACTIONS.names}
    sizes = {name: _byte_sizes(columns[name]) for name in ("event_id", "user_id", "item_id")}
    codes = _type_codes(columns["event_type"], catalog)
    faults = [
        fault
        for fault in (
            *_id_faults("event_id", columns, sizes["event_id"], required=False),
            *_id_faults("user_id", columns, sizes["user_id"], required=True),
            *_id_faults("item_id", columns, sizes["item_id"], required=True),
            _type_fault(codes, catalog),
            *_value_faults(columns["value"], codes, catalog),
            _time_fault(columns["event_time"]),
        )
        if fault.rows.any()
    ]
    columns["event_id"] = _null_where_empty(columns["event_id"], sizes["event_id"])
    columns["event_type"] = _fill_types(columns["event_type"], codes, catalog)
    columns["event_time"] = _fill_nulls(columns["event_time"], now_micros)
    filled = pa.Table.from_arrays(list(columns.values()), schema=INTERACTIONS)
    if not faults:
        return filled, []
    bad = np.logical_or.reduce([fault.rows for fault in faults])
    return filled.filter(pa.array(~bad)), _rejections(faults)


def _rejections(faults: list[_Fault]) -> list[Rejection]:
    found: dict[tuple[int, int], Rejection] = {}
    for fault in faults:
        place = INTERACTIONS.get_field_index(fault.column)
        for row in np.flatnonzero(fault.rows).tolist():
            found.setdefault((row, place), Rejection(row, fault.column, fault.reason))
    return [found[key] for key in sorted(found)]


def _id_faults(
    name: str, columns: dict[str, pa.Array], sizes: npt.NDArray[np.int32], *, required: bool
) -> Iterator[_Fault]:
    if required:
        yield _Fault(name, f"must be 1 to {MAX_ID_BYTES} bytes, is empty", sizes == 0)
    yield _Fault(name, f"must be at most {MAX_ID_BYTES} bytes", sizes > MAX_ID_BYTES)
    if _has_zero_byte(columns[name]):
        rows = _to_mask(pc.match_substring(columns[name], "\x00").fill_null(fill_value=False))
        yield _Fault(name, "must not have the character U+0000", rows)


def _type_fault(codes: npt.NDArray[np.int64], catalog: Catalog) -> _Fault:
    names = ", ".join(event.name for event in catalog.event_types)
    return _Fault(
        "event_type", f"must be an event type of the catalog; declared are: {names}", codes < 0
    )


def _value_faults(
    values: pa.Array, codes: npt.NDArray[np.int64], catalog: Catalog
) -> Iterator[_Fault]:
    """Yield the faults of values; without a declared event type only those of the number."""
    given = ~_null_mask(values)
    numbers = values.to_numpy(zero_copy_only=False)  # (rows,) float64, NaN where null
    meanings = [event.value_meaning for event in catalog.event_types]

    def is_one_of(*wanted: ValueMeaning) -> _Mask:
        # Undeclared types have the code -1, which picks the last element.
        return np.array([*(m in wanted for m in meanings), False])[codes]

    yield _Fault("value", "must be a finite number", given & ~np.isfinite(numbers))
    yield _Fault(
        "value", f"must be from {-MAX_VALUE:,.0f} to {MAX_VALUE:,.0f}", np.abs(numbers) > MAX_VALUE
    )
    yield _Fault(
        "value",
        "must be given: the values of this event type are ratings",
        is_one_of(ValueMeaning.RATING) & ~given,
    )
    yield _Fault(
        "value",
        "must be absent: this event type has no values",
        is_one_of(ValueMeaning.NONE) & given,
    )
    yield _Fault(
        "value",
        "must be 0 or more: the values of this event type are seconds or quantities",
        is_one_of(ValueMeaning.SECONDS, ValueMeaning.QUANTITY) & (numbers < 0),
    )


def _time_fault(times: pa.Array) -> _Fault:
    micros = _fill_nulls(times, 0).to_numpy()
    outside = (micros < MIN_EVENT_TIME) | (micros > MAX_EVENT_TIME)
    return _Fault("event_time", "must be in the years 1 to 9999", outside)


def _type_codes(types: pa.Array, catalog: Catalog) -> npt.NDArray[np.int64]:
    """The place of each row's event type among the declared ones, -1 for none: (rows,) int64."""
    names = [event.name for event in catalog.event_types]
    places = pc.index_in(types, value_set=pa.array([*names, ""], pa.string()))
    # An empty type and a null mean the only declared type; with several, they mean nothing.
    default = 0 if len(names) == 1 else -1
    codes: npt.NDArray[np.int64] = _fill_nulls(places, -1).to_numpy().astype(np.int64)
    codes[codes == len(names)] = default
    if types.null_count:
        codes[_null_mask(types)] = default
    return codes


def _fill_types(types: pa.Array, codes: npt.NDArray[np.int64], catalog: Catalog) -> pa.Array:
    if len(catalog.event_types) > 1 or not (types.null_count or (_byte_sizes(types) == 0).any()):
        return types
    return pc.if_else(pa.array(codes == 0), catalog.event_types[0].name, types)


def _null_where_empty(texts: pa.Array, sizes: npt.NDArray[np.int32]) -> pa.Array:
    if np.count_nonzero(sizes == 0) == texts.null_count:
        return texts
    return pc.if_else(pa.array(sizes == 0), pa.scalar(None, pa.string()), texts)


def _fill_nulls(array: pa.Array, value: int) -> pa.Array:
    return array.fill_null(value) if array.null_count else array


def _column(table: pa.Table, name: str) -> pa.Array:
    """The column as one array of the type that INTERACTIONS declares."""
    column = table.column(name)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    wanted = INTERACTIONS.field(name).type
    return array if array.type == wanted else array.cast(wanted)


def _byte_sizes(texts: pa.Array) -> npt.NDArray[np.int32]:
    """The bytes of each text, 0 for null: (rows,) int32."""
    offsets = _offsets(texts)
    sizes = offsets[1:] - offsets[:-1]
    if texts.null_count:
        sizes[_null_mask(texts)] = 0  # what lies under a null is undefined
    return sizes


def _has_zero_byte(texts: pa.Array) -> bool:
    data = texts.buffers()[2]
    offsets = _offsets(texts)
    if data is None or offsets[0] == offsets[-1]:
        return False
    return not np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]].all()


def _offsets(texts: pa.Array) -> npt.NDArray[np.int32]:
    """Where each text begins in the data, and where the last one ends: (rows + 1,) int32."""
    if not len(texts):
        return np.zeros(1, np.int32)  # an empty array need not have the buffer
    buffer = texts.buffers()[1]
    return np.frombuffer(buffer, np.int32, len(texts) + 1, offset=4 * texts.offset)


def _null_mask(array: pa.Array) -> _Mask:
    if array.null_count in (0, len(array)):
        return np.full(len(array), array.null_count > 0)
    return _to_mask(array.is_null())


def _to_mask(booleans: pa.Array) -> _Mask:
    mask: _Mask = booleans.to_numpy(zero_copy_only=False)
    return mask
