"""Values of fields and of filter parameters, timestamps and ids."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from milvine.domain.catalog import display_name_fault
from milvine.domain.entity import (
    MAX_ID_BYTES,
    FieldValue,
    from_micros,
    id_fault,
    to_micros,
    type_of,
    value_fault,
)
from milvine.domain.errors import InvalidArgument, Violation
from milvine.domain.filter import MAX_ELEMENTS, Scalar
from milvine.v1 import value_pb2

MIN_SECONDS = -62_135_596_800
MAX_SECONDS = 253_402_300_799
"""The seconds of the first and the last moment that a Timestamp can be, in years 1 to 9999."""

MAX_FILTER_BYTES = 16_384

Parameter: TypeAlias = Scalar | tuple[Scalar, ...]


def required_id(identifier: str, path: str) -> str:
    """The id itself where it has 1 to 256 bytes and no U+0000."""
    if fault := id_fault(identifier):
        raise InvalidArgument.at(path, fault)
    return identifier


def required_ids(identifiers: Sequence[str], path: str, *, least: int, most: int) -> list[str]:
    """The ids where their number and each of them is allowed."""
    check_count(len(identifiers), path, least=least, most=most)
    ids = list(identifiers)
    if _are_plain(ids):
        return ids
    violations = [
        Violation(f"{path}[{i}]", fault) for i, id_ in enumerate(ids) if (fault := id_fault(id_))
    ]
    if violations:
        raise InvalidArgument(violations)
    return ids


def _are_plain(ids: Sequence[str]) -> bool:
    """Whether all ids are good by what is quick to tell: 100,000 one by one take 50 ms."""
    lengths = set(map(len, ids))
    joined = "".join(ids)
    most_bytes = max(lengths, default=0) * (1 if joined.isascii() else 4)
    return 0 not in lengths and most_bytes <= MAX_ID_BYTES and "\x00" not in joined


def check_count(count: int, path: str, *, least: int, most: int) -> None:
    """Raise InvalidArgument unless there are `least` to `most` elements."""
    if not least <= count <= most:
        raise InvalidArgument.at(path, f"must have {least:,} to {most:,} elements, has {count:,}")


def display_name(name: str, path: str) -> str:
    """The name for people where it has at most 256 bytes and no U+0000."""
    if fault := display_name_fault(name):
        raise InvalidArgument.at(path, fault)
    return name


def field_value(value: value_pb2.Value, path: str) -> FieldValue:
    """The value of a declared field; whether the declaration fits is not checked here."""
    match value.WhichOneof("kind"):
        case None:
            raise InvalidArgument.at(path, "must have a kind; leave out a field without a value")
        case "double_list":
            raise InvalidArgument.at(path, "must not be a double_list: no field has that type")
        case "timestamp_value":
            return moment(value.timestamp_value, path)
        case "string_list":
            return tuple(value.string_list.values)
        case "int64_list":
            return tuple(value.int64_list.values)
        case kind:
            scalar: FieldValue = getattr(value, kind)
            return scalar


def filter_text(text: str, path: str) -> str:
    """The filter itself where it is not too long."""
    if len(text.encode()) > MAX_FILTER_BYTES:
        raise InvalidArgument.at(path, f"must be at most {MAX_FILTER_BYTES:,} bytes")
    return text


def parameters(values: Mapping[str, value_pb2.Value], path: str) -> dict[str, Parameter]:
    """The values of a filter's placeholders."""
    return {name: _parameter(value, f"{path}.{name}") for name, value in values.items()}


def _parameter(value: value_pb2.Value, path: str) -> Parameter:
    if value.WhichOneof("kind") == "double_list":
        return _doubles(value.double_list.values, path)
    found = field_value(value, path)
    if fault := value_fault(found, type_of(found), most=MAX_ELEMENTS):
        raise InvalidArgument.at(path, fault)
    return found


def _doubles(numbers: Sequence[float], path: str) -> tuple[float, ...]:
    check_count(len(numbers), path, least=0, most=MAX_ELEMENTS)
    if not all(map(math.isfinite, numbers)):
        raise InvalidArgument.at(path, "must have finite numbers only")
    return tuple(numbers)


def value_message(value: FieldValue) -> value_pb2.Value:
    """The message of a value."""
    # Ordered by frequency; a bool is an int, so it comes first.
    if isinstance(value, str):
        return value_pb2.Value(string_value=value)
    if isinstance(value, bool):
        return value_pb2.Value(bool_value=value)
    if isinstance(value, int):
        return value_pb2.Value(int64_value=value)
    if isinstance(value, float):
        return value_pb2.Value(double_value=value)
    if isinstance(value, datetime):
        return value_pb2.Value(timestamp_value=timestamp(value))
    return _list_message(value)


def value_messages(fields: Mapping[str, FieldValue]) -> dict[str, value_pb2.Value]:
    """The messages of an entity's values by field."""
    return {name: value_message(value) for name, value in fields.items()}


def moment(message: Timestamp, path: str) -> datetime:
    """The moment in UTC, cut to the microsecond."""
    if not is_moment(message.seconds, message.nanos):
        raise InvalidArgument.at(
            path, "must be in the years 1 to 9999, with nanos 0 to 999,999,999"
        )
    return from_micros(message.seconds * 1_000_000 + message.nanos // 1_000)


def is_moment(seconds: int, nanos: int) -> bool:
    """Whether a Timestamp has a meaning."""
    return MIN_SECONDS <= seconds <= MAX_SECONDS and 0 <= nanos < 1_000_000_000


def timestamp(moment: datetime | None) -> Timestamp | None:
    """The message of a moment; None, which leaves a field absent, for None."""
    if moment is None:
        return None
    seconds, micros = divmod(to_micros(moment), 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)


def duration(seconds: float) -> Duration:
    """The message of a duration."""
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def raise_all(violations: Iterable[Violation]) -> None:
    """Raise InvalidArgument where there is a violation."""
    if found := tuple(violations):
        raise InvalidArgument(found)


def _list_message(values: tuple[str, ...] | tuple[int, ...]) -> value_pb2.Value:
    # An empty list has lost its type: any list field takes it back.
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) == len(values):
        return value_pb2.Value(string_list=value_pb2.StringList(values=texts))
    numbers = [value for value in values if isinstance(value, int)]
    return value_pb2.Value(int64_list=value_pb2.Int64List(values=numbers))
