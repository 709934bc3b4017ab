"""The tree of a filter after parsing, binding and checking against a catalog.

Semantics: a comparison with a missing value is false, and so is its negation. So `not` stands
for the comparison's complement among the items that have a value; over `and` and `or` it follows
De Morgan. `is null` alone sees missing values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeAlias

from milvine.domain.catalog import Field, FieldType
from milvine.domain.errors import NotSupported

MAX_ELEMENTS = 10_000
"""The most values of a list, in the text of a filter or beside it."""

Scalar: TypeAlias = str | int | float | bool | datetime
"""A value that a filter compares with; a TIMESTAMP field compares with datetimes in UTC."""


class Operator(StrEnum):
    """A comparison of a field with a value."""

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="


@dataclass(frozen=True, slots=True)
class Comparison:
    """`year >= 1990`; for a list field (EQ and NE only) `value` is the whole list as a tuple."""

    field: Field
    operator: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class In:
    """`year in [1990, 1991]`."""

    field: Field
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Like:
    r"""`title like "The %"`: `%` is any text, `_` any character, `\` takes the next literally."""

    field: Field
    pattern: str


@dataclass(frozen=True, slots=True)
class Contains:
    """`array_contains_any(genres, [...])`: any or all of the values stand in the list."""

    field: Field
    values: tuple[Scalar, ...]
    all: bool


@dataclass(frozen=True, slots=True)
class IsNull:
    """`year is null`: there is no value."""

    field: Field


@dataclass(frozen=True, slots=True)
class And:
    """Every operand holds; with none, true."""

    operands: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one operand holds; with none, false."""

    operands: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The complement of the operand among what has values."""

    operand: Filter


Filter: TypeAlias = Comparison | In | Like | Contains | IsNull | And | Or | Not


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the filter expressions of a vector store can say."""

    negates_calls: bool
    """Whether it understands `not (...)` around a function or a `like`."""
    decodes_escapes: bool = True
    """Whether `\\n` in a string literal is a newline; otherwise it is the letter."""
    matches_bytes: bool = False
    """Whether `like` takes wildcards anywhere, `_` for one byte; otherwise only a final `%`."""


LITE = Dialect(negates_calls=False, decodes_escapes=False, matches_bytes=True)
"""What milvus-lite 2.5 understands."""
MILVUS = Dialect(negates_calls=True)
"""What every Milvus server from 2.3 on understands."""


_VERBATIM = {ord(sign): "\\" + sign for sign in '\\"\n'}
_DECODED = _VERBATIM | {ord(sign): code for sign, code in (("\n", "\\n"), ("\r", "\\r"))}
_LONE_RETURN = re.compile(r"\r(?!\n)")


def quote(text: str, dialect: Dialect) -> str:
    """A string literal: the text in double quotes, with nothing in it that ends the literal.

    Raises:
        NotSupported: It has a carriage return that no newline follows, and the store takes none.
    """
    quoted = text.translate(_DECODED if dialect.decodes_escapes else _VERBATIM)
    if dialect.decodes_escapes:
        return f'"{quoted}"'
    # A backslash before a line end takes it into the literal, and a carriage return alone is none.
    if _LONE_RETURN.search(text):
        raise NotSupported(
            "this vector store can't compare with text that has a carriage return without a newline"
        )
    return '"' + quoted.replace("\r\\\n", "\\\r\n") + '"'


def flag_column(name: str) -> str:
    """The BOOL column that says whether the field of that name has a value.

    Declared names begin with a letter, so it meets none of them.
    """
    return f"_has_{name}"


PLACEHOLDERS: dict[FieldType, Scalar | tuple[Scalar, ...]] = {
    FieldType.STRING: "",
    FieldType.INT64: 0,
    FieldType.DOUBLE: 0.0,
    FieldType.BOOL: False,
    FieldType.TIMESTAMP: datetime(1970, 1, 1, tzinfo=UTC),
    FieldType.STRING_LIST: (),
    FieldType.INT64_LIST: (),
}
"""What a column holds where the field has no value: servers before 2.5 know no null."""
