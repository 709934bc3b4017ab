"""Items and users: an id from the client's systems and declared metadata."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeAlias

import pyarrow as pa

from milvine.domain.catalog import Catalog, Field, FieldType
from milvine.domain.errors import Violation

FieldValue: TypeAlias = str | int | float | bool | datetime | tuple[str, ...] | tuple[int, ...]
"""A value of a declared field; a datetime is aware, in UTC."""

MAX_ID_BYTES = 256
MAX_TEXT_BYTES = 65_535
MAX_LIST_LENGTH = 1_024
MAX_LIST_TEXT_BYTES = 1_024
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

ARROW_TYPES: Mapping[FieldType, pa.DataType] = {
    FieldType.STRING: pa.string(),
    FieldType.INT64: pa.int64(),
    FieldType.DOUBLE: pa.float64(),
    FieldType.BOOL: pa.bool_(),
    FieldType.TIMESTAMP: pa.int64(),
    FieldType.STRING_LIST: pa.list_(pa.string()),
    FieldType.INT64_LIST: pa.list_(pa.int64()),
}
"""The types of columns of values in Arrow tables; times are microseconds since 1970."""

_SCALAR_TYPES = {
    bool: FieldType.BOOL,
    int: FieldType.INT64,
    float: FieldType.DOUBLE,
    str: FieldType.STRING,
    datetime: FieldType.TIMESTAMP,
}


class Side(StrEnum):
    """The two sides of a catalog, which are stored and indexed alike."""

    ITEM = "item"
    USER = "user"

    def fields(self, catalog: Catalog) -> tuple[Field, ...]:
        """The fields that the catalog declares for this side."""
        return catalog.item_fields if self is Side.ITEM else catalog.user_fields


@dataclass(frozen=True, slots=True)
class Entity:
    """An item or a user. A field without a value is not in `fields`."""

    id: str
    fields: Mapping[str, FieldValue] = field(default_factory=dict)
    create_time: datetime | None = None
    update_time: datetime | None = None


def text_of(fields: Mapping[str, FieldValue], names: Iterable[str]) -> str:
    """The text that fields of those names make together, a line each; blank for no value."""
    return "\n".join(str(fields[name]) for name in names if name in fields).strip()


def id_fault(identifier: str) -> str | None:
    """What is wrong with an id of an item, user or event, in words; None for a good one."""
    size = len(identifier.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= MAX_ID_BYTES:
        return f"must be 1 to {MAX_ID_BYTES} bytes, is {size}"
    if "\x00" in identifier:
        return "must not have the character U+0000"
    return None


def entity_faults(
    entity: Entity, side: Side, declared: Mapping[str, Field], path: str
) -> Iterable[Violation]:
    """Yield what is wrong with an entity; `path` is its place in the request."""
    if fault := id_fault(entity.id):
        yield Violation(f"{path}.{side}_id", fault)
    for name, value in entity.fields.items():
        if name not in declared:
            known = ", ".join(declared) or "none"
            yield Violation(
                f"{path}.fields.{name}", f"is not declared by the catalog; declared are: {known}"
            )
        elif fault := value_fault(value, declared[name].type):
            yield Violation(f"{path}.fields.{name}", fault)


def value_fault(
    value: FieldValue, expected: FieldType, *, most: int = MAX_LIST_LENGTH
) -> str | None:
    """What is wrong with a value of that type, in words; None for a good one.

    Args:
        value: The value.
        expected: The type that the field declares.
        most: The most elements of a list.
    """
    found = type_of(value)
    # An empty list carries no element type.
    if found is not expected and not (value == () and expected.is_list):
        return f"must be {expected}, is {found}"
    match value:
        case float() if not math.isfinite(value):
            return "must be a finite number"
        case str():
            return _text_fault(value, MAX_TEXT_BYTES)
        case tuple():
            return _list_fault(value, most)
        case _:
            return None


def type_of(value: FieldValue) -> FieldType:
    """The field type of a value; an empty tuple is a STRING_LIST."""
    if isinstance(value, tuple):
        is_whole = bool(value) and isinstance(value[0], int)
        return FieldType.INT64_LIST if is_whole else FieldType.STRING_LIST
    return _SCALAR_TYPES[type(value)]


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC."""
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_micros(micros: int) -> datetime:
    """The moment of that many microseconds since 1970, in UTC."""
    seconds, rest = divmod(micros, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def _list_fault(values: tuple[str, ...] | tuple[int, ...], most: int) -> str | None:
    if len(values) > most:
        return f"must have at most {most:,} elements, has {len(values):,}"
    faults = (_text_fault(v, MAX_LIST_TEXT_BYTES) for v in values if isinstance(v, str))
    return next((f"an element {fault}" for fault in faults if fault), None)


def _text_fault(text: str, limit: int) -> str | None:
    if len(text.encode("utf-8", "surrogatepass")) > limit:
        return f"must be at most {limit:,} bytes"
    if "\x00" in text:
        return "must not have the character U+0000"
    return None
