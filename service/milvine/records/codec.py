"""Values as JSON texts and back, without losing their types."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import ARROW_TYPES, FieldValue, from_micros, to_micros

T = TypeVar("T")

_MICROS = "us"
"""The key that marks a moment among the fields of an entity, which hold no other objects."""


def dump(value: object) -> str:
    """A frozen dataclass, or a JSON value, as JSON."""
    return orjson.dumps(value, default=_plain).decode()


def load(kind: type[T], text: str) -> T:
    """The dataclass of that kind; what the text lacks takes its default."""
    return cast("T", _build(kind, orjson.loads(text)))


def load_json(text: str) -> dict[str, Any]:
    """A JSON object."""
    return cast("dict[str, Any]", orjson.loads(text))


def dump_fields(fields: Mapping[str, FieldValue]) -> str:
    """The fields of an entity: integers to 64 bits, moments to the microsecond."""
    return orjson.dumps(
        fields, default=_plain_field, option=orjson.OPT_PASSTHROUGH_DATETIME
    ).decode()


def load_fields(text: str) -> dict[str, FieldValue]:
    """The fields of an entity."""
    return {name: _field(value) for name, value in orjson.loads(text).items()}


def load_values(texts: Iterable[str | None]) -> list[FieldValue | None]:
    """Values of a field, each of which is a JSON text, or None where there is none."""
    values = orjson.loads("[" + ",".join(text or "null" for text in texts) + "]")
    return [_field(value) if isinstance(value, (list, dict)) else value for value in values]


def columns_of(ids: Sequence[str], texts: Sequence[str], fields: Sequence[Field]) -> pa.Table:
    """The ids of entities with the values of some fields, a column each, out of their texts."""
    found = _parsed(texts, fields) if texts and fields else None
    columns = {"id": pa.chunked_array([pa.array(ids, pa.string())])}
    for field in fields:
        kind = ARROW_TYPES[field.type]
        values = pa.chunked_array([], kind) if found is None else found[field.name]
        is_time = pa.types.is_struct(values.type)
        columns[field.name] = pc.struct_field(values, _MICROS) if is_time else values
    return pa.table(columns)


def _parsed(texts: Sequence[str], fields: Sequence[Field]) -> pa.Table:
    kinds = {
        field.name: pa.struct([(_MICROS, pa.int64())])
        if field.type is FieldType.TIMESTAMP
        else ARROW_TYPES[field.type]
        for field in fields
    }
    lines = "\n".join(texts).encode()
    return pa.json.read_json(
        pa.BufferReader(lines),
        read_options=pa.json.ReadOptions(block_size=len(lines) + 1),
        parse_options=pa.json.ParseOptions(
            explicit_schema=pa.schema(list(kinds.items())), unexpected_field_behavior="ignore"
        ),
    )


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _plain_field(value: object) -> object:
    return {_MICROS: to_micros(value)} if isinstance(value, datetime) else _plain(value)


def _field(value: Any) -> FieldValue:  # noqa: ANN401 - JSON
    match value:
        case list():
            return tuple(value)
        case dict():
            return from_micros(value[_MICROS])
        case _:
            return cast("FieldValue", value)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(kind: Any, value: Any) -> Any:  # noqa: ANN401 - a type, and JSON
    if value is None:
        return None
    if get_origin(kind) in (Union, types.UnionType):
        return _build_optional(kind, value)
    if get_origin(kind) is tuple:
        return tuple(_build(get_args(kind)[0], v) for v in value)
    if is_dataclass(kind):
        return _build_dataclass(kind, value)
    if kind is datetime:
        return datetime.fromisoformat(value)
    return kind(value) if isinstance(kind, type) and issubclass(kind, Enum) else value


def _build_dataclass(kind: Any, value: Any) -> Any:  # noqa: ANN401 - a type, and JSON
    hints = _hints(kind)
    return kind(**{name: _build(hints[name], v) for name, v in value.items() if name in hints})


def _build_optional(kind: Any, value: Any) -> Any:  # noqa: ANN401 - a type, and JSON
    """`X | None` is an X here; a union of plain types is what JSON says."""
    others = [k for k in get_args(kind) if k is not types.NoneType]
    return _build(others[0], value) if len(others) == 1 else value
