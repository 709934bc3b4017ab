"""Rows as the columns that Milvus stores, and back.

Each declared field has a typed column and a BOOL column that says whether there is a value:
servers before 2.5 know no null, so a missing value is stored as the type's placeholder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pymilvus.grpc_gen.schema_pb2 import DataType, FieldData, FieldSchema, ScalarField

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import (
    MAX_LIST_LENGTH,
    MAX_LIST_TEXT_BYTES,
    MAX_TEXT_BYTES,
    FieldValue,
    from_micros,
    to_micros,
)
from milvine.domain.filter import PLACEHOLDERS, flag_column
from milvine.vectors.connection import Message

ID, VECTOR = "id", "vector"

Stored: TypeAlias = Any
"""A value as the messages hold it: a TIMESTAMP is an int, a list a message of its own."""


@dataclass(frozen=True, slots=True)
class Column:
    """How values of a field type are stored."""

    type: int
    """Milvus's DataType."""
    slot: str
    """The member of ScalarField that holds the values."""
    parameters: Mapping[str, str]
    element: int = 0
    """The DataType of a list's elements; 0 for none."""
    store: Callable[[Any], Stored] = lambda value: value
    restore: Callable[[Stored], FieldValue] = lambda value: value


def _texts(values: tuple[str, ...]) -> ScalarField:
    return ScalarField(string_data={"data": values})


def _ints(values: tuple[int, ...]) -> ScalarField:
    return ScalarField(long_data={"data": values})


COLUMNS: dict[FieldType, Column] = {
    FieldType.STRING: Column(DataType.VarChar, "string_data", {"max_length": str(MAX_TEXT_BYTES)}),
    FieldType.INT64: Column(DataType.Int64, "long_data", {}),
    FieldType.DOUBLE: Column(DataType.Double, "double_data", {}),
    FieldType.BOOL: Column(DataType.Bool, "bool_data", {}),
    FieldType.TIMESTAMP: Column(
        DataType.Int64, "long_data", {}, store=to_micros, restore=from_micros
    ),
    FieldType.STRING_LIST: Column(
        DataType.Array,
        "array_data",
        {"max_capacity": str(MAX_LIST_LENGTH), "max_length": str(MAX_LIST_TEXT_BYTES)},
        DataType.VarChar,
        _texts,
        lambda stored: tuple(stored.string_data.data),
    ),
    FieldType.INT64_LIST: Column(
        DataType.Array,
        "array_data",
        {"max_capacity": str(MAX_LIST_LENGTH)},
        DataType.Int64,
        _ints,
        lambda stored: tuple(stored.long_data.data),
    ),
}


def schema(dimension: int, fields: Iterable[Field], *, id_bytes: int) -> list[FieldSchema]:
    """The columns of a collection."""
    columns = [
        FieldSchema(
            name=ID,
            data_type=DataType.VarChar,
            is_primary_key=True,
            type_params=pairs({"max_length": str(id_bytes)}),
        ),
        FieldSchema(
            name=VECTOR,
            data_type=DataType.FloatVector,
            type_params=pairs({"dim": str(dimension)}),
        ),
    ]
    for field in fields:
        column = COLUMNS[field.type]
        columns += [
            FieldSchema(
                name=field.column,
                data_type=column.type,
                element_type=column.element,
                type_params=pairs(column.parameters),
            ),
            FieldSchema(name=flag_column(field.name), data_type=DataType.Bool),
        ]
    return columns


def pairs(values: Mapping[str, str]) -> list[Message]:
    """Key-value messages."""
    return [{"key": key, "value": value} for key, value in values.items()]


def names(fields: Iterable[Field]) -> list[str]:
    """The columns to ask for to get these fields."""
    return [name for field in fields for name in (field.column, flag_column(field.name))]


def encode(
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    fields: Sequence[Field],
    rows: Sequence[Mapping[str, FieldValue]],
) -> list[FieldData]:
    """The columns of rows; `vectors` is (n, dimension) float32."""
    columns = [
        FieldData(type=DataType.VarChar, field_name=ID, scalars={"string_data": {"data": ids}}),
        FieldData(
            type=DataType.FloatVector,
            field_name=VECTOR,
            vectors={
                "dim": vectors.shape[1],
                "float_vector": {"data": vectors.ravel().tolist()},
            },
        ),
    ]
    for field in fields:
        columns += _encode(field, rows)
    return columns


def _encode(field: Field, rows: Sequence[Mapping[str, FieldValue]]) -> Iterable[FieldData]:
    column = COLUMNS[field.type]
    missing = column.store(PLACEHOLDERS[field.type])
    held = [column.store(row[field.name]) if field.name in row else missing for row in rows]
    data = {"data": held, "element_type": column.element} if column.element else {"data": held}
    flags = [field.name in row for row in rows]
    yield FieldData(type=column.type, field_name=field.column, scalars={column.slot: data})
    yield FieldData(
        type=DataType.Bool,
        field_name=flag_column(field.name),
        scalars={"bool_data": {"data": flags}},
    )


def decode(data: Message, fields: Sequence[Field], count: int) -> list[dict[str, FieldValue]]:
    """The fields of `count` rows from the columns of a reply."""
    rows: list[dict[str, FieldValue]] = [{} for _ in range(count)]
    by_name = {column.field_name: column for column in data}
    for field in fields if count else ():
        column = COLUMNS[field.type]
        values = getattr(by_name[field.column].scalars, column.slot).data
        flags = by_name[flag_column(field.name)].scalars.bool_data.data
        for row, value, present in zip(rows, values, flags, strict=True):
            if present:
                row[field.name] = column.restore(value)
    return rows


def decode_ids(data: Message) -> list[str]:
    """The ids from the columns of a query's reply."""
    for column in data:
        if column.field_name == ID:
            return list(column.scalars.string_data.data)
    return []


def decode_vectors(data: Message) -> NDArray[np.float32]:
    """The vectors from the columns of a query's reply, (n, dimension) float32."""
    for column in data:
        if column.field_name == VECTOR:
            flat = np.array(column.vectors.float_vector.data, dtype=np.float32)
            return flat.reshape(-1, column.vectors.dim)
    return np.empty((0, 0), dtype=np.float32)
