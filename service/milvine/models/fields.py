"""How declared fields become features: learned from the rows of a training, kept in its artifact.

Categories and members of lists are tokens: the most frequent values each have one, all others of
the field share one. Numbers are scaled to median 0 and deviation 1, and stand in buckets of about
equal size besides, each a token, for what they say is seldom a straight line. Whole numbers of few
distinct values are categories, too. Times are numbers, and have their places in the year, the week
and the day. Texts to embed stay texts, one for a row. What a row has no value for adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import ARROW_TYPES, FieldValue, to_micros
from milvine.domain.errors import InvalidArgument
from milvine.models.features import Features
from milvine.models.texts import FindReader, TextCode, TextReader

ALL = "*"
MOST_VALUES = 10_000
"""So many values of a field have a token of their own, if two rows have them at least."""
MOST_CODES = 1_000
"""Whole numbers of at most so many distinct values are categories."""
BUCKETS = 16
_WIDEST = 4.0
"""No number is further from the middle, in deviations."""
_DAY = 86_400e6
_CYCLES = (365.2425 * _DAY, 7 * _DAY, _DAY)
_NUMBERS = (FieldType.INT64, FieldType.DOUBLE, FieldType.TIMESTAMP)

_Numbers: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Tokens:
    """Tokens of one field."""

    rows: NDArray[np.int64]
    """(n,): whose they are, ascending."""
    tokens: NDArray[np.int64]
    """(n,): from 0."""
    weights: NDArray[np.float32]
    """(n,)"""


@dataclass(frozen=True, slots=True)
class FieldCode:
    """How the values of a field become tokens and numbers."""

    name: str
    type: FieldType
    values: tuple[str, ...] = ()
    """Those that have a token each."""
    edges: tuple[float, ...] = ()
    """The bounds between buckets, ascending."""
    middle: float = 0.0
    deviation: float = 1.0

    @classmethod
    def learned(cls, field: Field, column: pa.Array) -> FieldCode:
        """The code of a field whose values are those of a column."""
        values: tuple[str, ...] = ()
        edges: tuple[float, ...] = ()
        middle, deviation = 0.0, 1.0
        if field.type not in (FieldType.DOUBLE, FieldType.TIMESTAMP):
            values = _frequent(_members(column), has_bound=field.type is FieldType.INT64)
        if field.type in _NUMBERS:
            numbers = column.drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
            middle, deviation = _scale(numbers)
            edges = () if values else _edges(numbers)
        return cls(field.name, field.type, values, edges, middle, deviation)

    @property
    def token_count(self) -> int:
        """Its tokens: one for each value and one for all others, or one for each bucket."""
        return len(self.edges) + 1 if self._has_buckets else len(self.values) + 1

    @property
    def number_count(self) -> int:
        """Its numbers."""
        if self.type is FieldType.TIMESTAMP:
            return 1 + 2 * len(_CYCLES)
        return int(self.type in _NUMBERS)

    def tokens(self, column: pa.Array) -> _Tokens:
        """The tokens of rows."""
        if self._has_buckets:
            rows = np.flatnonzero(~np.isnan(numbers := _floats(column)))
            return _even(rows, np.searchsorted(self.edges, numbers[rows], side="right"))
        members = _members(column)
        found = pc.index_in(members, value_set=pa.array(self.values, pa.string()))
        tokens = np.asarray(pc.fill_null(found, len(self.values)).to_numpy(), np.int64)
        if not self.type.is_list:
            rows = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
            return _even(rows, tokens[rows])
        rows = pc.list_parent_indices(column).to_numpy().astype(np.int64)
        lengths = np.bincount(rows, minlength=len(column))
        return _Tokens(rows, tokens, (1.0 / lengths[rows]).astype(np.float32))

    def numbers(self, column: pa.Array) -> _Numbers:
        """The numbers of rows, (rows, number_count)."""
        values = _floats(column)
        with np.errstate(over="ignore"):
            scaled = ((values - self.middle) / self.deviation).clip(-_WIDEST, _WIDEST)
        parts = [scaled]
        if self.type is FieldType.TIMESTAMP:
            angles = [2 * np.pi * np.mod(values / cycle, 1.0) for cycle in _CYCLES]
            parts += [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
        numbers: _Numbers = np.nan_to_num(np.stack(parts, axis=1))
        return numbers

    @property
    def _has_buckets(self) -> bool:
        return self.type in _NUMBERS and not self.values


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the fields of one side become features."""

    codes: tuple[FieldCode, ...]
    text: TextCode | None = None
    """The fields that are read as text; None for none."""

    @classmethod
    def learned(
        cls, fields: Sequence[Field], table: pa.Table, reader: TextReader | None = None
    ) -> Encoding:
        """The encoding of fields whose values are the columns of a table.

        The reader reads those with `embed_text`; without one they are left out.
        """
        names = tuple(field.name for field in fields if field.embed_text)
        coded = (field for field in fields if not field.embed_text)
        return cls(
            tuple(FieldCode.learned(field, _column(table, field.name)) for field in coded),
            TextCode.of(names, reader) if names and reader else None,
        )

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields, each once."""
        types = dict.fromkeys(self.text.names if self.text else (), FieldType.STRING)
        types |= {code.name: code.type for code in self.codes}
        return tuple(Field(name, type_) for name, type_ in types.items())

    @property
    def token_count(self) -> int:
        """The tokens of all fields."""
        return sum(code.token_count for code in self.codes)

    @property
    def number_count(self) -> int:
        """The numbers of all fields."""
        return sum(code.number_count for code in self.codes)

    def features(self, table: pa.Table) -> Features:
        """The features of the rows of a table, which has a column for each field."""
        found, first = [], 0
        numbers = [np.zeros((len(table), 0))]
        for code in self.codes:
            column = _column(table, code.name)
            own = code.tokens(column)
            found.append(_Tokens(own.rows, own.tokens + first, own.weights))
            first += code.token_count
            if code.number_count:
                numbers.append(code.numbers(column))
        features = _features(found, np.concatenate(numbers, axis=1).astype(np.float32), first)
        return replace(features, texts=self.text.texts(table)) if self.text else features

    def of(self, rows: Sequence[Mapping[str, FieldValue]]) -> Features:
        """The features of rows that are not a table yet."""
        columns = {
            field.name: pa.array(
                [_plain(row.get(field.name)) for row in rows], ARROW_TYPES[field.type]
            )
            for field in self.fields
        }
        return self.features(pa.table(columns)) if columns else Features.none(len(rows))

    def packed(self) -> NDArray[np.uint8]:
        """The encoding as bytes, for an artifact."""
        values = {
            "codes": [asdict(code) for code in self.codes],
            "text": self.text.packed if self.text else None,
        }
        return np.frombuffer(orjson.dumps(values), np.uint8)

    @classmethod
    def unpacked(cls, data: NDArray[np.generic], find: FindReader) -> Encoding:
        """The encoding of bytes that `packed` made; `find` finds the reader of its texts."""
        values = orjson.loads(data.tobytes())
        if isinstance(values, list):  # an artifact from before texts were read
            values = {"codes": values, "text": None}
        text = TextCode.unpacked(values["text"], find) if values["text"] else None
        return cls(tuple(_code(**code) for code in values["codes"]), text)


def chosen(declared: Sequence[Field], names: str, path: str) -> tuple[Field, ...]:
    """The fields of a setting: names with commas between them, or `*` for all but texts to embed.

    A text that is named is a category.

    Raises:
        InvalidArgument: One is not declared; `path` is the setting's.
    """
    if names.strip() == ALL:
        return tuple(field for field in declared if not field.embed_text)
    by_name = {field.name: field for field in declared}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in by_name]:
        known = ", ".join(by_name) or "none"
        raise InvalidArgument.at(
            path, f"{unknown[0]!r} is not a field of the catalog; declared are: {known}"
        )
    return tuple(replace(by_name[name], embed_text=False) for name in dict.fromkeys(wanted))


def _code(
    name: str,
    type: str,  # noqa: A002 - the field's name
    values: list[str],
    edges: list[float],
    **scale: float,
) -> FieldCode:
    return FieldCode(name, FieldType(type), tuple(values), tuple(edges), **scale)


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _members(column: pa.Array) -> pa.Array:
    """The values, of lists their members, as texts."""
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    return values.cast(pa.string())


def _frequent(values: pa.Array, *, has_bound: bool) -> tuple[str, ...]:
    """The values that at least two have, the most frequent ones; none where they are no codes."""
    counts = pc.value_counts(values.drop_null())
    table = pa.table({"value": counts.field("values"), "count": counts.field("counts")})
    if has_bound and len(table) > MOST_CODES:
        return ()
    table = table.filter(pc.greater(table["count"], 1))
    order = [("count", "descending"), ("value", "ascending")]
    frequent: list[str] = table.sort_by(order)["value"][:MOST_VALUES].to_pylist()
    return tuple(frequent)


def _scale(numbers: _Numbers) -> tuple[float, float]:
    """The median, and half of what two thirds of the numbers span: outliers don't move them."""
    if not len(numbers):
        return 0.0, 1.0
    low, middle, high = np.quantile(numbers, (1 / 6, 1 / 2, 5 / 6)).tolist()
    return middle, (high / 2 - low / 2) or 1.0


def _edges(numbers: _Numbers) -> tuple[float, ...]:
    if not len(numbers):
        return ()
    edges: list[float] = np.unique(np.quantile(numbers, np.arange(1, BUCKETS) / BUCKETS)).tolist()
    return tuple(edges)


def _floats(column: pa.Array) -> _Numbers:
    """A column of numbers; NaN where there is none."""
    values: _Numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _even(rows: NDArray[np.int64], tokens: NDArray[np.int64]) -> _Tokens:
    return _Tokens(rows, tokens, np.ones(len(rows), np.float32))


def _features(found: Sequence[_Tokens], numbers: NDArray[np.float32], token_count: int) -> Features:
    if not found:
        return Features.none(len(numbers))
    rows = np.concatenate([one.rows for one in found])
    order = np.argsort(rows, kind="stable")
    offsets = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(numbers)))))
    return Features(
        offsets,
        np.concatenate([one.tokens for one in found])[order].astype(np.int32),
        np.concatenate([one.weights for one in found])[order],
        token_count,
        numbers,
    )


def _plain(value: FieldValue | None) -> object:
    return to_micros(value) if isinstance(value, datetime) else value
