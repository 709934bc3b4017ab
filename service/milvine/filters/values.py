"""From what a filter's text or parameters hold to a value of a field's type."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import INT64_MAX, INT64_MIN
from milvine.domain.filter import Scalar

ELEMENTS = {FieldType.STRING_LIST: FieldType.STRING, FieldType.INT64_LIST: FieldType.INT64}
"""The types of the elements of lists."""

_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_PLAIN_ESCAPES = {
    **{sign: sign for sign in "\\\"'"},
    **dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True)),
}
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))?"
)


class BadValueError(ValueError):
    """A value does not fit; the text says why and what would."""


def unquote(quoted: str) -> str:
    """The text of a string literal, without its quotes and escapes.

    Raises:
        BadValueError: An escape is unknown.
    """
    return _ESCAPE.sub(_unescape, quoted[1:-1])


def number(text: str) -> int | float:
    """The value of a number literal: an integer where it has neither point nor exponent.

    Raises:
        BadValueError: It has more digits than any number that a field takes.
    """
    if len(text) > 400:
        raise BadValueError("the number is too long; no field takes so many digits")
    return float(text) if any(sign in text for sign in ".eE") else int(text)


def element_type(field: Field) -> FieldType:
    """The type of a field's values, or of the elements of its lists."""
    return ELEMENTS.get(field.type, field.type)


def fit(value: Scalar, field: Field) -> Scalar:
    """A value as one of the field's type, or of its elements' for a list.

    Raises:
        BadValueError: It does not fit.
    """
    expected = element_type(field)
    fitted = _FIT[expected](value)
    if fitted is None:
        raise BadValueError(
            f"{field.name!r} is {field.type}, it can't be compared with {describe(value)}; "
            f"{_WAY_OUT[expected]}"
        )
    return fitted


def describe(value: Scalar) -> str:
    """A value in the words of an error."""
    match value:
        case bool():
            return f"the truth value {str(value).lower()}"
        case int() | float():
            shown = repr(value)
            return f"the number {shown if len(shown) <= 40 else shown[:37] + '...'}"
        case datetime():
            return f"the time {value.isoformat()}"
        case _:
            return f"the string {value if len(value) <= 40 else value[:37] + '...'!r}"


def _unescape(escape: re.Match[str]) -> str:
    code = escape[1]
    if len(code) == 1:
        if code not in _PLAIN_ESCAPES:
            raise BadValueError(rf"the escape \{code} is unknown; write \\ for a backslash")
        return _PLAIN_ESCAPES[code]
    point = int(code[1:], 16)
    if point > 0x10FFFF:
        raise BadValueError(f"the escape {escape[0]} is no character")
    return chr(point)


def _text(value: Scalar) -> str | None:
    if not isinstance(value, str):
        return None
    if any(sign == "\x00" or "\ud800" <= sign <= "\udfff" for sign in value):
        raise BadValueError("a string can't have the character U+0000 or half a surrogate pair")
    return value


def _int(value: Scalar) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if INT64_MIN <= value <= INT64_MAX else None


def _float(value: Scalar) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def _bool(value: Scalar) -> bool | None:
    return value if isinstance(value, bool) else None


def _moment(value: Scalar) -> datetime | None:
    try:
        match value:
            case datetime() if value.tzinfo is not None:
                return value.astimezone(UTC)
            case str() if _MOMENT.fullmatch(value.upper()):
                moment = datetime.fromisoformat(value.upper())
                is_date = moment.tzinfo is None
                return moment.replace(tzinfo=UTC) if is_date else moment.astimezone(UTC)
            case _:
                return None
    except (ValueError, OverflowError):  # a month 13, or year 0 after the change to UTC
        return None


_FIT: dict[FieldType, Callable[[Scalar], Scalar | None]] = {
    FieldType.STRING: _text,
    FieldType.INT64: _int,
    FieldType.DOUBLE: _float,
    FieldType.BOOL: _bool,
    FieldType.TIMESTAMP: _moment,
}
_WAY_OUT = {
    FieldType.STRING: 'write a string in quotes: "Drama"',
    FieldType.INT64: "write a whole number of 64 bits: 1990",
    FieldType.DOUBLE: "write a finite number: 4.5",
    FieldType.BOOL: "write true or false",
    FieldType.TIMESTAMP: 'write a time as "2024-01-31T12:00:00Z" or a date as "2024-01-31"',
}
