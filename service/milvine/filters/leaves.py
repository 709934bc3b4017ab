"""The leaves of a filter as expressions of a vector store, each in both senses.

What Lite 2.5.1 and Milvus 2.3.5 do, found by trying both: neither has constants, `is null` or an
empty list; a literal stands on the right (Lite reads `1 == x` as `x != 1`); DOUBLE lists take no
integers; lists compare element by element; `-2**63` is no literal.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeAlias

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import INT64_MIN, MAX_LIST_LENGTH, to_micros
from milvine.domain.errors import NotSupported
from milvine.domain.filter import (
    PLACEHOLDERS,
    Comparison,
    Contains,
    Dialect,
    In,
    Like,
    Operator,
    Scalar,
    flag_column,
    quote,
)
from milvine.filters import patterns
from milvine.filters.expression import ALWAYS, NEVER, Piece, both, either
from milvine.filters.values import element_type

Leaf: TypeAlias = Comparison | In | Like | Contains

_COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    # Any: both sides are of the field's type, which types can't say.
    Operator.EQ: operator.eq,
    Operator.NE: operator.ne,
    Operator.LT: operator.lt,
    Operator.LE: operator.le,
    Operator.GT: operator.gt,
    Operator.GE: operator.ge,
}
_COMPLEMENTS = {
    Operator.EQ: Operator.NE,
    Operator.NE: Operator.EQ,
    Operator.LT: Operator.GE,
    Operator.GE: Operator.LT,
    Operator.GT: Operator.LE,
    Operator.LE: Operator.GT,
}
_MAX_NEGATED_ALL = 8
"""How many values a negated `array_contains_all` has on Lite: each costs 1,024 terms."""
_MAX_NEGATED_TEXT = 3_072
"""How long the values of a negated call are on Lite: each of 1,024 places repeats them."""


def leaf(leaf_: Leaf, dialect: Dialect, *, wanted: bool) -> Piece:
    """The leaf, or where not `wanted` its complement, over the stored columns."""
    match leaf_:
        case Comparison(field, sign, value):
            sign = sign if wanted else _COMPLEMENTS[sign]
            if isinstance(value, tuple):
                return _list_equality(field, value, dialect, equal=sign is Operator.EQ)
            return Piece(f"{field.column} {sign} {_literal(value, field, dialect)}")
        case In(field, values):
            return _membership(field, values, dialect, wanted=wanted)
        case Like(field, pattern):
            return patterns.like(field.column, pattern, dialect, wanted=wanted)
        case Contains(field, values, all=every):
            return _contains(field, values, dialect, every=every, wanted=wanted)


def flag(field: Field, *, present: bool) -> Piece:
    """Whether the field has a value."""
    return Piece(f"{flag_column(field.name)} == {str(present).lower()}")


def placeholder_satisfies(leaf_: Leaf) -> bool:
    """Whether a leaf holds for what is stored for a missing value."""
    held = PLACEHOLDERS[leaf_.field.type]
    match leaf_:
        case Comparison(_, sign, value):
            return _COMPARE[sign](held, value)
        case In(_, values):
            return held in values
        case Like(_, pattern):
            return set(pattern) <= {"%"}
        case Contains(_, values, all=every):
            return every and not values


def _literal(value: Scalar, field: Field, dialect: Dialect) -> str:
    """A value in an expression: the only way in, so nothing of it is ever read as syntax."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return quote(value, dialect)
        case datetime():
            return str(to_micros(value))
        case float() | int() if element_type(field) is FieldType.DOUBLE:
            return repr(float(value))
        case _:
            # Both parsers read the digits before the sign, and 2**63 is out of their range.
            return str(value) if value > INT64_MIN else f"{value + 1} - 1"


def _listed(values: Iterable[Scalar], field: Field, dialect: Dialect) -> str:
    return f"[{', '.join(_literal(value, field, dialect) for value in values)}]"


def _membership(
    field: Field, values: tuple[Scalar, ...], dialect: Dialect, *, wanted: bool
) -> Piece:
    if not values:
        return NEVER if wanted else ALWAYS
    return Piece(f"{field.column} {'in' if wanted else 'not in'} {_listed(values, field, dialect)}")


def _list_equality(
    field: Field, values: tuple[Scalar, ...], dialect: Dialect, *, equal: bool
) -> Piece:
    """Element by element: Lite compares no lists, and the server has no empty one."""
    if len(values) > MAX_LIST_LENGTH:
        return NEVER if equal else ALWAYS
    sign, join = ("==", both) if equal else ("!=", either)
    return join(
        Piece(f"array_length({field.column}) {sign} {len(values)}"),
        *(
            Piece(f"{field.column}[{i}] {sign} {_literal(value, field, dialect)}")
            for i, value in enumerate(values)
        ),
    )


def _contains(
    field: Field, values: tuple[Scalar, ...], dialect: Dialect, *, every: bool, wanted: bool
) -> Piece:
    if not values:
        return ALWAYS if every == wanted else NEVER
    if every and len(set(values)) > MAX_LIST_LENGTH:
        return NEVER if wanted else ALWAYS  # no list has so many
    if not wanted and not dialect.negates_calls:
        return _lacks(field, values, dialect, every=every)
    function = f"array_contains_{'all' if every else 'any'}"
    call = f"{function}({field.column}, {_listed(values, field, dialect)})"
    return Piece(call) if wanted else Piece(f"not ({call})", 1)


def _lacks(field: Field, values: tuple[Scalar, ...], dialect: Dialect, *, every: bool) -> Piece:
    """The complement of a call without `not`: no place of the list holds any of the values.

    A place past the end of a list is in no set, so there `not in` holds.
    """
    sets = [(value,) for value in dict.fromkeys(values)] if every else [values]
    if len(sets) > _MAX_NEGATED_ALL:
        raise NotSupported(
            f"this vector store negates array_contains_all of at most {_MAX_NEGATED_ALL} values"
        )
    lists = [_listed(one, field, dialect) for one in sets]
    if sum(map(len, lists)) > _MAX_NEGATED_TEXT:
        raise NotSupported(
            "this vector store negates array_contains of values that come to at most "
            f"{_MAX_NEGATED_TEXT:,} characters"
        )
    return either(
        *(
            both(
                *(
                    Piece(f"{field.column}[{place}] not in {listed}")
                    for place in range(MAX_LIST_LENGTH)
                )
            )
            for listed in lists
        )
    )
